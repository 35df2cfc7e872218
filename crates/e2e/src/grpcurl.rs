//! The program that operators inspect a server with.

use std::path::{Path, PathBuf};

/// grpcurl, from where `bin/setup` puts it.
///
/// # Panics
/// When it is not installed.
pub fn grpcurl() -> PathBuf {
    let tools = std::env::var_os("LONGTAKE_TOOLS").map(|tools| PathBuf::from(tools).join("bin"));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.longtake/tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = tools.into_iter().chain([own]).chain(std::env::split_paths(&path));
    let found = folders.map(|folder| folder.join("grpcurl")).find(|program| program.is_file());
    found.expect("grpcurl is not installed: `bin/setup --ci` (or --test) installs it into .longtake/tools")
}
