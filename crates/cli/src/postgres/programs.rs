//! Finds the PostgreSQL server programs that are installed on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// The oldest version that Longtake's schema runs on.
const OLDEST_MAJOR: u32 = 15;
const NEEDED: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

/// Where packages put one folder per major version, off the `PATH`: (parent, what precedes the version).
const VERSIONED: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
    ("/Applications/Postgres.app/Contents/Versions", ""),
];

/// One installed PostgreSQL.
#[derive(Debug)]
pub(super) struct Programs {
    bin: PathBuf,
}

impl Programs {
    /// The first usable installation: `explicit` alone where it is given, else `PATH`, `pg_config`, then the places
    /// where packages put it, newest first. Data of version `wanted` passes over installations of another one.
    pub(super) async fn find(explicit: Option<&Path>, wanted: Option<u32>) -> Result<Self> {
        let candidates = match explicit {
            Some(bin) => vec![std::path::absolute(bin)?],
            None => usual_places().await,
        };
        let mut passed_over = Vec::new();
        for bin in candidates {
            if !NEEDED.iter().all(|name| bin.join(name).is_file()) {
                continue;
            }
            let major = major_of(&bin).await?;
            if major >= OLDEST_MAJOR && wanted.is_none_or(|wanted| wanted == major) {
                return Ok(Self { bin });
            }
            passed_over.push(format!("{major} in {}", bin.display()));
        }
        let found = if passed_over.is_empty() { "none".to_owned() } else { passed_over.join(", ") };
        match (explicit, wanted) {
            (_, Some(wanted)) if !passed_over.is_empty() => bail!(
                "the data folder was made by PostgreSQL {wanted}, which is not installed (found: {found}). Install \
                 PostgreSQL {wanted}, or move the data folder away to begin with an empty one"
            ),
            (Some(bin), _) => bail!(
                "no PostgreSQL {OLDEST_MAJOR} or newer in {}: it must hold {} (found: {found})",
                bin.display(),
                NEEDED.join(", ")
            ),
            (None, _) => bail!(
                "no PostgreSQL {OLDEST_MAJOR} or newer is installed (found: {found}). {}, or name a running \
                 database with --database-url",
                INSTALL_ADVICE
            ),
        }
    }

    /// The path of one of the programs.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

const INSTALL_ADVICE: &str = if cfg!(target_os = "macos") {
    "Install it with `brew install postgresql@17`"
} else {
    "Install it with `apt-get install postgresql` (Debian, Ubuntu), `dnf install postgresql-server` (Fedora, RHEL) or \
     your system's package of the server"
};

async fn usual_places() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await {
        places.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    for (parent, prefix) in VERSIONED {
        let mut majors: Vec<u32> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok())
            .collect();
        majors.sort_unstable_by(|a, b| b.cmp(a));
        places.extend(
            majors.iter().map(|major| Path::new(parent).join(format!("{prefix}{major}")).join("bin")),
        );
    }
    places
}

/// The major version that `postgres --version` names: "postgres (PostgreSQL) 15.18 (Debian …)", "… 19beta1".
async fn major_of(bin: &Path) -> Result<u32> {
    let postgres = bin.join("postgres");
    let output = Command::new(&postgres)
        .arg("--version")
        .output()
        .await
        .with_context(|| format!("cannot run {}", postgres.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split(' ').nth(2).unwrap_or_default();
    let digits = version.find(|c: char| !c.is_ascii_digit()).map_or(version, |end| &version[..end]);
    digits.parse().with_context(|| format!("{} does not say its version: {text:?}", postgres.display()))
}
