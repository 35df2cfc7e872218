//! A backup is restored while executors live on that were given leases by the lost past.

use longtake_e2e::{Database, Hand, Server, World, causes, definitions, run, step};
use longtake_proto::v1::attempt::Cause;
use serde_json::json;
use tokio::process::Command;
use tonic::Code;

use crate::{SINGLE, SOON, creation, refused};

/// A copy of the database as it is now, made by the tools that operators use.
async fn restored(world: &World, from: &Database) -> Database {
    let file = world.dir().join("backup.sql");
    let mut dump = Command::new("pg_dump");
    dump.arg(format!("--dbname={}", from.url())).arg("--file").arg(&file);
    let dumped = run(dump, SOON).await;
    assert_eq!(dumped.code, Some(0), "{}", dumped.err);
    let copy = Database::create().await;
    let mut load = Command::new("psql");
    load.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]).arg(format!("--dbname={}", copy.url()));
    load.arg("--file").arg(&file);
    let loaded = run(load, SOON).await;
    assert_eq!(loaded.code, Some(0), "{}", loaded.err);
    copy
}

/// Nobody can say how much of a render that reports now was begun under a lease that never was. So none counts.
#[tokio::test]
async fn after_a_restore_no_lease_of_the_lost_past_counts_and_every_run_goes_on() {
    let world = World::new().await;
    let folder = definitions(world.folder("definitions"), &[("single", SINGLE)]);
    let mut server = world.server_with(&folder).await;
    let client = server.client();
    let (early, late) = (Hand::new(&client, "early", &["work"]), Hand::new(&client, "late", &["work"]));
    let one = client.create("single", json!({})).await;
    let two = client.create("single", json!({})).await;
    let before = early.take().await;
    assert_eq!(before.run_id, one);
    early.checkpoint(&before, Hand::at(1, 1, 9)).await;
    let backup = restored(&world, world.database()).await;
    // What the backup knows nothing of: a lease, and a run.
    let after = late.take().await;
    assert_eq!(after.run_id, two);
    let request = creation("single");
    let three = client.runs().create_run(request.clone()).await.expect("accepted").into_inner().run;
    let three = three.expect("the run").run_id;
    server.process().kill().await;

    let second = Server::start_told("second", world.dir(), backup.url(), &folder, &["--after-restore"]).await;
    let client = second.client();
    let (early, late) = (early.through(&client), late.through(&client));
    let told = early.complete(&before, json!({ "by": "early" })).await;
    assert_eq!(refused(told).as_deref(), Some("LEASE_SUPERSEDED"), "a lease of the backup");
    let told = late.complete(&after, json!({ "by": "late" })).await;
    assert_eq!(refused(told).as_deref(), Some("LEASE_UNKNOWN"), "a lease that never was");

    let fresh = Hand::new(&client, "fresh", &["work"]);
    for _ in 0..2 {
        let lease = fresh.take().await;
        let done = lease.checkpoint.clone().and_then(|it| it.checkpoint).map(|it| it.done);
        if lease.run_id == one {
            assert_eq!(
                (lease.attempt, done),
                (2, Some(1)),
                "it carries on from the checkpoint of the backup"
            );
        } else {
            // The same run, step and attempt as the lease that never was: only the token tells them apart.
            assert_eq!((lease.run_id.as_str(), lease.attempt, done), (two.as_str(), after.attempt, None));
            let told = late.complete(&after, json!({ "by": "late" })).await;
            assert_eq!(refused(told).as_deref(), Some("LEASE_UNKNOWN"));
        }
        assert_eq!(refused(fresh.complete(&lease, json!({ "by": "fresh" })).await), None);
    }
    let run = client.succeeded(&one, SOON).await;
    assert_eq!(causes(step(&run, "work")), [Cause::LeaseLost, Cause::Completed]);
    client.succeeded(&two, SOON).await;
    // A run of the lost past is gone, and made again under its request id by whoever still wants it.
    let lost = client.try_run(&three).await.expect_err("it is not in the backup");
    assert_eq!(lost.code(), Code::NotFound);
    let again = client.runs().create_run(request).await.expect("accepted").into_inner();
    assert!(again.created);
    assert_eq!(again.run.expect("the run").run_id, three);
}

/// Without the flag the server cannot know that it was a restore: what the restored rows say still holds.
#[tokio::test]
async fn without_the_flag_leases_of_the_backup_stay_valid() {
    let world = World::new().await;
    let folder = definitions(world.folder("definitions"), &[("single", SINGLE)]);
    let mut server = world.server_with(&folder).await;
    let client = server.client();
    let hand = Hand::new(&client, "hand", &["work"]);
    let run_id = client.create("single", json!({})).await;
    let lease = hand.take().await;
    let backup = restored(&world, world.database()).await;
    server.process().kill().await;
    let second = Server::start("second", world.dir(), backup.url(), &folder).await;
    let client = second.client();
    assert_eq!(refused(hand.through(&client).complete(&lease, json!({})).await), None);
    client.succeeded(&run_id, SOON).await;
}
