//! What runs on this machine, as Linux tells it.

use std::path::Path;

/// The processes whose command line names this folder: their ids and the line.
pub fn processes_that_name(folder: &Path) -> Vec<(u32, String)> {
    let named = folder.to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|entry| {
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines.filter(|(_, line)| line.contains(&named)).collect()
}
