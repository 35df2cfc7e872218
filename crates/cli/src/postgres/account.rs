//! Whom the server programs run as. They refuse to run as root, so root hands them to an unprivileged user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

/// Another user, whom we become for the server programs. Only root has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

/// Our effective user id. The standard library does not tell it.
pub(super) async fn own_uid() -> Result<u32> {
    let output = Command::new("id").arg("-u").output().await.context("cannot run `id -u`")?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("`id -u` does not print a number")
}

impl Account {
    /// For root: whoever owns one of `places` already, else `postgres`, else `nobody`.
    pub(super) fn choose(places: &[&Path]) -> Result<Self> {
        let owners = places.iter().filter_map(|place| fs::metadata(place).ok());
        if let Some(owner) = owners.into_iter().find(|owner| owner.uid() != 0) {
            return Ok(Self { uid: owner.uid(), gid: owner.gid() });
        }
        let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        let Some(account) = ["postgres", "nobody"].iter().find_map(|name| Self::in_passwd(&passwd, name))
        else {
            bail!("PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody`");
        };
        Ok(account)
    }

    fn in_passwd(passwd: &str, name: &str) -> Option<Self> {
        let mut fields = passwd.lines().map(|line| line.split(':')).find_map(|mut fields| {
            let found = fields.next()? == name;
            found.then_some(fields)
        })?;
        Some(Self { uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }

    /// Whether this user can go through every folder down to `dir` (by mode bits: access lists are not looked at).
    pub(super) fn reaches(self, dir: &Path) -> bool {
        dir.ancestors().all(|folder| {
            fs::metadata(folder).is_ok_and(|meta| {
                let shift = match meta {
                    _ if meta.uid() == self.uid => 6,
                    _ if meta.gid() == self.gid => 3,
                    _ => 0,
                };
                (meta.mode() >> shift) & 1 == 1
            })
        })
    }
}

/// Makes a folder that only the server's user can enter, or checks that an existing one is exactly that.
pub(super) fn private_folder(path: &Path, account: Option<Account>, own_uid: u32) -> Result<()> {
    let failed = || format!("cannot make the folder {}", path.display());
    match fs::create_dir(path) {
        Ok(()) => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(failed)?;
            if let Some(Account { uid, gid }) = account {
                chown(path, Some(uid), Some(gid)).with_context(failed)?;
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(path).with_context(failed)?;
            let uid = account.map_or(own_uid, |account| account.uid);
            ensure!(
                meta.is_dir() && meta.uid() == uid && meta.mode() & 0o077 == 0,
                "{} must be a folder that only user {uid} can enter: remove it",
                path.display()
            );
        }
        Err(error) => return Err(error).with_context(failed),
    }
    Ok(())
}

/// A command that runs as the server's user, from a folder that every user may be in.
pub(super) fn command(program: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").env("LC_ALL", "C");
    // PGDATA, PGPORT, PGOPTIONS … of the caller's shell are about another server.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    command
}
