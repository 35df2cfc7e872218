//! The primary is lost and a standby takes its place: streaming replication between two clusters, promoted by hand.

use std::cell::Cell;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use longtake::postgres::{PostgresOptions, PrivatePostgres};
use longtake_e2e::{Client, Hand, Server, World, causes, definitions, eventually, run, step};
use longtake_proto::v1::attempt::Cause;
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::process::Command;
use tonic::Code;

use crate::{SINGLE, SOON, creation, refused};

/// A primary with its standby, and the address that servers know: it leads to the one that is meant to be written to.
struct Pair {
    primary: PrivatePostgres,
    standby: PathBuf,
    address: PathBuf,
}

impl Pair {
    /// Both, the standby not running.
    async fn new(world: &World) -> Pair {
        let primary = start(&world.folder("primary")).await;
        let standby = world.folder("standby");
        let (cluster, copy) = (primary.dir().join("cluster"), standby.join("cluster"));
        let mut backup = Command::new("pg_basebackup");
        backup.arg("--host").arg(socket(&primary)).args(["--username", "longtake", "--checkpoint", "fast"]);
        backup.args(["--write-recovery-conf", "--wal-method", "stream", "--pgdata"]).arg(&copy);
        let copied = run(backup, SOON).await;
        assert_eq!(copied.code, Some(0), "{}", copied.err);
        // As root, who made the copy, PostgreSQL does not run.
        let mut owner = Command::new("chown");
        owner.arg("-R").arg(format!("--reference={}", cluster.display())).arg(&copy);
        assert_eq!(run(owner, SOON).await.code, Some(0));
        let address = world.dir().join("address");
        lead(&address, &socket(&primary));
        Pair { primary, standby, address }
    }

    fn url(&self) -> String {
        let address = self.address.to_str().expect("a path in UTF-8").replace('/', "%2F");
        format!("postgresql://longtake@{address}:5432/longtake?sslmode=disable")
    }

    /// Runs the standby; it has followed the primary when this returns.
    async fn follow(&self) -> PrivatePostgres {
        let standby = start(&self.standby).await;
        let mut primary = connect(&self.primary).await;
        eventually(SOON, async || {
            let sql = "select count(*) from pg_stat_replication where state = 'streaming' and replay_lsn >= pg_current_wal_flush_lsn()";
            let following: i64 = sqlx::query_scalar(sql).fetch_one(&mut primary).await.expect("a count");
            if following == 1 { Ok(()) } else { Err("the standby does not follow".to_owned()) }
        })
        .await;
        standby
    }

    /// From now on a commit is one when the standby has it too.
    async fn replicate_synchronously(&self) {
        let mut primary = connect(&self.primary).await;
        primary.execute("alter system set synchronous_standby_names = '*'").await.expect("it is set");
        primary.execute("select pg_reload_conf()").await.expect("it is told");
        eventually(SOON, async || {
            let sql = "select count(*) from pg_stat_replication where sync_state = 'sync'";
            let synchronous: i64 = sqlx::query_scalar(sql).fetch_one(&mut primary).await.expect("a count");
            if synchronous == 1 { Ok(()) } else { Err("replication is asynchronous".to_owned()) }
        })
        .await;
    }

    /// The primary is gone, as if its machine were.
    async fn lose_primary(self) -> Survivor {
        self.primary.kill().await.expect("the primary is killed");
        Survivor { standby: self.standby, address: self.address }
    }
}

/// What is left of a pair.
struct Survivor {
    standby: PathBuf,
    address: PathBuf,
}

impl Survivor {
    /// The address leads to the standby, which is told to be the primary.
    async fn promote(&self, standby: &PrivatePostgres) {
        lead(&self.address, &socket(standby));
        let promoted: bool = sqlx::query_scalar("select pg_promote()")
            .fetch_one(&mut connect(standby).await)
            .await
            .expect("it is told");
        assert!(promoted);
    }
}

async fn start(folder: &Path) -> PrivatePostgres {
    PrivatePostgres::start(PostgresOptions::new(folder)).await.expect("PostgreSQL starts")
}

async fn connect(to: &PrivatePostgres) -> PgConnection {
    PgConnection::connect(&to.url()).await.expect("a connection")
}

fn socket(of: &PrivatePostgres) -> PathBuf {
    let socket = of.dir().join("socket");
    assert!(socket.is_dir(), "the folder of the test is too long for a socket: {}", socket.display());
    socket
}

/// Makes `address` lead to `socket`.
fn lead(address: &Path, socket: &Path) {
    let fresh = address.with_extension("new");
    symlink(socket, &fresh).expect("a link");
    std::fs::rename(fresh, address).expect("the link takes its place");
}

async fn runs(stored: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select count(*) from run").fetch_one(stored).await.expect("a count")
}

/// Waits until there are.
async fn more_than(wanted: i64, stored: &mut PgConnection) {
    eventually(SOON, async || {
        let runs = runs(stored).await;
        if runs > wanted { Ok(()) } else { Err(format!("{runs} runs of more than {wanted}")) }
    })
    .await;
}

/// Submits one run after another until told to stop, and says which were acknowledged.
async fn submit(client: &Client, stop: &Cell<bool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !stop.get() {
        let request = creation("single");
        acknowledged.push(
            eventually(SOON, async || match client.runs().create_run(request.clone()).await {
                Ok(answer) => Ok(answer.into_inner().run.expect("the run").run_id),
                Err(status) if status.code() == Code::Unavailable => Err(status.to_string()),
                Err(status) => panic!("a submit failed: {status}"),
            })
            .await,
        );
    }
    acknowledged
}

/// Nothing that was acknowledged is lost, not even a lease: its executor has not noticed anything.
#[tokio::test]
async fn with_synchronous_replication_a_failover_loses_nothing() {
    let world = World::without_database();
    let folder = definitions(world.folder("definitions"), &[("single", SINGLE)]);
    let pair = Pair::new(&world).await;
    let standby = pair.follow().await;
    pair.replicate_synchronously().await;
    let mut server = Server::start("server", world.dir(), &pair.url(), &folder).await;
    let client = server.client();
    let hand = Hand::new(&client, "hand", &["work"]);
    let held = client.create("single", json!({})).await;
    let lease = hand.take().await;
    hand.checkpoint(&lease, Hand::at(1, 1, 9)).await;

    let stop = Cell::new(false);
    let (acknowledged, ()) = tokio::join!(submit(&client, &stop), async {
        let mut primary = connect(&pair.primary).await;
        more_than(20, &mut primary).await;
        pair.lose_primary().await.promote(&standby).await;
        // The server finds its way by itself, and goes on taking submits.
        let mut promoted = connect(&standby).await;
        let before = runs(&mut promoted).await;
        more_than(before + 5, &mut promoted).await;
        stop.set(true);
    });
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());

    assert_eq!(refused(hand.complete(&lease, json!({})).await), None, "the lease from before counts");
    let run = client.succeeded(&held, SOON).await;
    assert_eq!(causes(step(&run, "work")), [Cause::Completed], "nobody was charged");
    for _ in &acknowledged {
        let lease = hand.take().await;
        assert_eq!(refused(hand.complete(&lease, json!({})).await), None);
    }
    for run_id in acknowledged {
        client.succeeded(&run_id, SOON).await;
    }
    assert_eq!(server.process().end(), None, "the server outlived it");
    server.process().kill().await;
    standby.stop().await.expect("PostgreSQL stops");
}

/// Acknowledged, but not replicated: lost, and that is what asynchronous replication means. What is not lost is that nothing of
/// the lost past counts.
#[tokio::test]
async fn what_was_not_replicated_is_lost_and_after_restore_lets_nothing_of_it_count() {
    let world = World::without_database();
    let folder = definitions(world.folder("definitions"), &[("single", SINGLE)]);
    let pair = Pair::new(&world).await;
    let mut server = Server::start("server", world.dir(), &pair.url(), &folder).await;
    let client = server.client();
    let (early, late) = (Hand::new(&client, "early", &["work"]), Hand::new(&client, "late", &["work"]));
    let kept = client.create("single", json!({})).await;
    let before = early.take().await;
    assert_eq!(before.run_id, kept);
    pair.follow().await.stop().await.expect("the standby stops");
    // From here on nothing is replicated.
    let lost = client.create("single", json!({})).await;
    let after = late.take().await;
    assert_eq!(after.run_id, lost);
    server.process().kill().await;
    let url = pair.url();
    let survivor = pair.lose_primary().await;
    let standby = start(&survivor.standby).await;
    survivor.promote(&standby).await;

    let mut second = Server::start_told("second", world.dir(), &url, &folder, &["--after-restore"]).await;
    let client = second.client();
    let (early, late) = (early.through(&client), late.through(&client));
    assert_eq!(refused(late.complete(&after, json!({})).await).as_deref(), Some("LEASE_UNKNOWN"));
    assert_eq!(client.try_run(&lost).await.expect_err("it was not replicated").code(), Code::NotFound);
    assert_eq!(refused(early.complete(&before, json!({})).await).as_deref(), Some("LEASE_SUPERSEDED"));
    let fresh = Hand::new(&client, "fresh", &["work"]);
    let lease = fresh.take().await;
    assert_eq!((lease.run_id.as_str(), lease.attempt), (kept.as_str(), 2));
    assert_eq!(refused(fresh.complete(&lease, json!({})).await), None);
    client.succeeded(&kept, SOON).await;
    second.process().kill().await;
    standby.stop().await.expect("PostgreSQL stops");
}
