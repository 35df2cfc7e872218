//! Everything that one test owns.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Client, Database, Executor, Server, shipped_definitions};

/// A folder, a database, and the ways to start what runs on them.
pub struct World {
    // Dropped in this order: the database before the folder.
    database: Option<Database>,
    dir: TempDir,
}

impl World {
    /// A world with a database on the server that `LONGTAKE_TEST_DATABASE_URL` names.
    pub async fn new() -> World {
        let database = Some(Database::create().await);
        World { database, ..World::without_database() }
    }

    /// A world for tests that bring their own PostgreSQL.
    pub fn without_database() -> World {
        let dir = tempfile::Builder::new().prefix("longtake-e2e-").tempdir().expect("a folder for the test");
        // A PostgreSQL of ours may run as another user.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755))
            .expect("a folder that all may enter");
        World { database: None, dir }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A folder in it, made if need be.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.dir.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// The database.
    ///
    /// # Panics
    /// In a world without one.
    pub fn database(&self) -> &Database {
        self.database.as_ref().expect("a world with a database")
    }

    /// A server on this world's database, with the definitions that ship.
    pub async fn server(&self) -> Server {
        self.server_with(&shipped_definitions()).await
    }

    /// A server on this world's database, with the definitions of a folder.
    pub async fn server_with(&self, definitions: &Path) -> Server {
        Server::start("server", self.dir(), self.database().url(), definitions).await
    }

    /// A server with the definitions that ship, and a client of it.
    pub async fn served(&self) -> (Server, Client) {
        let server = self.server().await;
        let client = server.client();
        (server, client)
    }

    /// An executor process that works for `server` on these queues, not yet started.
    pub fn executor(&self, server: &Server, name: &str, queues: &[&str]) -> Executor {
        Executor::new(self, &server.url(), name, queues)
    }

    /// Where the executors of this world keep artifacts.
    pub fn artifacts(&self) -> PathBuf {
        self.folder("artifacts")
    }
}
