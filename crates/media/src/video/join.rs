//! From segments to the video: joined without encoding again, with a poster.

use std::path::{Path, PathBuf};

use super::segment::words;
use crate::error::MediaError;
use crate::tool::{Call, Tool};

/// Puts segments into the work folder under names that are made here: those need no quoting, whatever the storage's path holds.
pub(super) async fn link(segments: &[PathBuf], work: &Path) -> Result<(), MediaError> {
    let mut list = String::from("ffconcat version 1.0\n");
    for (index, segment) in segments.iter().enumerate() {
        let name = format!("part-{index:03}.mp4");
        let link = work.join(&name);
        link_or_copy(segment, &link).await.map_err(MediaError::io("linking a segment to", &link))?;
        list.push_str(&format!("file {name}\n"));
    }
    let path = work.join("parts.txt");
    tokio::fs::write(&path, list).await.map_err(MediaError::io("writing", &path))
}

/// Joins the segments that were linked, in their order.
pub(super) async fn join(work: &Path, ffmpeg: &Tool) -> Result<PathBuf, MediaError> {
    let call = Call {
        tool: ffmpeg,
        doing: "to join the segments".to_owned(),
        folder: work,
        arguments: words(
            "-hide_banner -nostdin -loglevel error -y -f concat -i parts.txt -c copy -map_metadata -1 \
             -fflags +bitexact -movflags +faststart -video_track_timescale 12800 video.mp4",
        ),
        stdin: None,
    };
    call.output().await?;
    Ok(work.join("video.mp4"))
}

/// The first slide as a picture, from the first segment that was linked.
pub(super) async fn poster(work: &Path, ffmpeg: &Tool) -> Result<PathBuf, MediaError> {
    let arguments = words(
        "-hide_banner -nostdin -loglevel error -y -i part-000.mp4 -frames:v 1 -map_metadata -1 \
         -fflags +bitexact -flags:v +bitexact -threads 1 poster.png",
    );
    let doing = "to take the poster".to_owned();
    Call { tool: ffmpeg, doing, folder: work, arguments, stdin: None }.output().await?;
    Ok(work.join("poster.png"))
}

#[cfg(unix)]
async fn link_or_copy(file: &Path, link: &Path) -> std::io::Result<()> {
    tokio::fs::symlink(file, link).await
}

#[cfg(not(unix))]
async fn link_or_copy(file: &Path, link: &Path) -> std::io::Result<()> {
    tokio::fs::copy(file, link).await.map(|_| ())
}
