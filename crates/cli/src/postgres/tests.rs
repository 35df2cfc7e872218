//! Against the PostgreSQL programs of this machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use super::{PostgresOptions, PrivatePostgres, programs::Programs};

/// A folder for one test, which the server's user can reach too.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let everybody = Permissions::from_mode(0o755);
        Self(tempfile::Builder::new().prefix("longtake-").permissions(everybody).tempdir().unwrap())
    }

    fn join(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn options(&self) -> PostgresOptions {
        PostgresOptions { fallback_dir: self.join("fallback"), ..PostgresOptions::new(self.join("pg")) }
    }
}

/// What `psql` prints for a statement.
async fn ask(postgres: &PrivatePostgres, sql: &str) -> String {
    let server = Programs::find(None, None).await.unwrap().path("postgres").canonicalize().unwrap();
    let mut command = Command::new(server.with_file_name("psql"));
    command.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]).arg(postgres.url());
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn start(folder: &Folder) -> PrivatePostgres {
    PrivatePostgres::start(folder.options()).await.unwrap()
}

async fn refused(options: PostgresOptions) -> String {
    format!("{:#}", PrivatePostgres::start(options).await.unwrap_err())
}

#[tokio::test]
async fn data_outlives_a_stop_and_durability_is_on() {
    let folder = Folder::new();
    let postgres = start(&folder).await;
    let url = postgres.url();
    ask(&postgres, "create table kept as select 7 as n").await;
    for (setting, value) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("max_connections", "100"),
    ] {
        assert_eq!(ask(&postgres, &format!("show {setting}")).await, value, "{setting}");
    }
    assert_eq!(ask(&postgres, "select usesuper from pg_user where usename = current_user").await, "t");
    let socket_mode = fs::metadata(postgres.dir().join("socket")).unwrap().permissions().mode();
    assert_eq!(socket_mode & 0o777, 0o700);
    let pid = postgres.pid();
    postgres.stop().await.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists());
    assert!(!folder.join("pg/socket").exists());

    let postgres = start(&folder).await;
    assert_eq!(postgres.url(), url);
    assert_eq!(ask(&postgres, "select n from kept").await, "7");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_crash_is_noticed_and_costs_nothing_committed() {
    let folder = Folder::new();
    let mut postgres = start(&folder).await;
    ask(&postgres, "create table kept as select 7 as n").await;
    let killed =
        Command::new("sh").arg("-c").arg(format!("kill -9 {}", postgres.pid())).status().await.unwrap();
    assert!(killed.success());
    let how = postgres.exited().await.to_string();
    assert!(how.contains("killed by signal 9") && how.contains("ready to accept connections"), "{how}");
    drop(postgres);

    let postgres = start(&folder).await;
    assert_eq!(ask(&postgres, "select n from kept").await, "7");
    postgres.kill().await.unwrap();

    let postgres = start(&folder).await;
    assert_eq!(ask(&postgres, "select n from kept").await, "7");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_supervisor_is_refused_by_name() {
    let folder = Folder::new();
    let postgres = start(&folder).await;
    let why = refused(folder.options()).await;
    assert!(why.contains(&format!("in use by process {}", std::process::id())), "{why}");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_left_behind_is_replaced() {
    let folder = Folder::new();
    let postgres = start(&folder).await;
    ask(&postgres, "create table kept as select 7 as n").await;
    let left = postgres.pid();
    let PrivatePostgres { server, home, .. } = postgres;
    std::mem::forget(server); // as a SIGKILL of this process leaves it: alive, with the lock free
    drop(home);

    let postgres = start(&folder).await;
    assert_ne!(postgres.pid(), left);
    assert_eq!(ask(&postgres, "select n from kept").await, "7");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_somebody_else_started_is_not_touched() {
    let folder = Folder::new();
    let postgres = start(&folder).await;
    postgres.stop().await.unwrap();
    let home = super::home::Home::open(&folder.options().dir, &folder.join("")).await.unwrap();
    let programs = Programs::find(None, None).await.unwrap();
    let mut by_hand = super::account::command(&programs.path("postgres"), home.account);
    by_hand.arg("-D").arg(home.cluster()).args(["-c", "listen_addresses=", "-k"]).arg(home.socket_dir());
    by_hand.stdout(Stdio::null()).stderr(Stdio::null());
    let mut by_hand = by_hand.kill_on_drop(true).spawn().unwrap();
    while !fs::read_to_string(home.pid_file()).unwrap_or_default().contains("ready") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(home);

    let why = refused(folder.options()).await;
    assert!(
        why.contains(&format!("(process {})", by_hand.id().unwrap())) && why.contains("stop it first"),
        "{why}"
    );
    by_hand.kill().await.unwrap();
}

#[tokio::test]
async fn a_pid_file_that_names_another_program_does_not_block() {
    let folder = Folder::new();
    start(&folder).await.stop().await.unwrap();
    let note = format!("{}\n{}\n", std::process::id(), folder.join("pg/cluster").display());
    fs::write(folder.join("pg/cluster/postmaster.pid"), &note).unwrap();
    let home = super::home::Home::open(&folder.options().dir, &folder.join("")).await.unwrap();
    fs::write(home.socket_dir().join(".s.PGSQL.5432.lock"), &note).unwrap();
    drop(home);
    start(&folder).await.stop().await.unwrap();
}

#[tokio::test]
async fn half_made_data_is_made_again() {
    let folder = Folder::new();
    fs::create_dir_all(folder.join("pg/cluster.new/base")).unwrap();
    fs::write(folder.join("pg/cluster.new/PG_VERSION"), "15\n").unwrap();
    let postgres = start(&folder).await;
    assert_eq!(ask(&postgres, "select current_database()").await, "longtake");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn data_of_another_version_is_refused() {
    let folder = Folder::new();
    start(&folder).await.stop().await.unwrap();
    fs::write(folder.join("pg/cluster/PG_VERSION"), "99\n").unwrap();
    let why = refused(folder.options()).await;
    assert!(why.contains("made by PostgreSQL 99, which is not installed (found: "), "{why}");
}

#[tokio::test]
async fn a_long_path_gets_a_short_socket() {
    let folder = Folder::new();
    let options = PostgresOptions { dir: folder.join(&"d".repeat(90)).join("ä, \"x\""), ..folder.options() };
    let postgres = PrivatePostgres::start(options.clone()).await.unwrap();
    assert_eq!(ask(&postgres, "select 1").await, "1");
    let url = postgres.url();
    postgres.stop().await.unwrap();
    let postgres = PrivatePostgres::start(options).await.unwrap();
    assert_eq!(postgres.url(), url);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_start_shows_its_log() {
    let folder = Folder::new();
    start(&folder).await.stop().await.unwrap();
    fs::write(folder.join("pg/cluster/postgresql.auto.conf"), "no_such_setting = 1\n").unwrap();
    let why = refused(folder.options()).await;
    assert!(why.contains("no_such_setting") && why.contains("postgres.log"), "{why}");
}

#[tokio::test]
async fn missing_programs_are_named() {
    let folder = Folder::new();
    let why = refused(PostgresOptions { bin_dir: Some(folder.join("")), ..folder.options() }).await;
    assert!(why.contains("no PostgreSQL 15 or newer in") && why.contains("initdb"), "{why}");
}

#[tokio::test]
async fn root_goes_where_an_unprivileged_user_can() {
    let folder = Folder::new();
    let closed = folder.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let postgres =
        PrivatePostgres::start(PostgresOptions { dir: closed.join("pg"), ..folder.options() }).await.unwrap();
    let is_root = super::account::own_uid().await.unwrap() == 0;
    assert_eq!(postgres.dir().starts_with(folder.join("fallback")), is_root, "{}", postgres.dir().display());
    assert_eq!(ask(&postgres, "select 1").await, "1");
    postgres.stop().await.unwrap();
}
