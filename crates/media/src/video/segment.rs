//! One scene as a playable segment: its slide and its speech, encoded so that segments can be joined without encoding again, and
//! so that the same scene gives the same bytes every time.

use std::path::{Path, PathBuf};

use super::slide::{Across, BACKGROUND, Drawing, HEIGHT, Slide, WIDTH};
use crate::error::MediaError;
use crate::timing::Slot;
use crate::tool::{Call, Tool};

pub(crate) const FRAMES_PER_SECOND: u64 = 25;
const SAMPLES_PER_SECOND: u64 = 48_000;
/// AAC codes this many samples at a time, and begins with one such frame that only primes the decoder.
const AAC_FRAME: u64 = 1_024;
/// What the file is called in its scene's folder.
const SEGMENT: &str = "segment.mp4";
/// The same slide by itself.
const PICTURE: &str = "slide.png";
/// How segments are encoded, as options of ffmpeg: all but the number of threads. For whoever compares.
pub const VIDEO_ENCODING: &str = "-c:v libx264 -preset superfast -tune stillimage -crf 18 -bf 0 -g 250 \
     -colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv \
     -c:a aac -b:a 80k -video_track_timescale 12800 -map_metadata -1 \
     -fflags +bitexact -flags:v +bitexact -flags:a +bitexact";
/// From a drawn slide to what is encoded, as filters of ffmpeg: the colours are those of HD video.
pub const VIDEO_COLORS: &str = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p";

/// What a segment is made of, beside its slide.
pub(super) struct Segment<'a> {
    /// Of this scene, counted from 1, for messages.
    pub number: usize,
    /// An empty folder of its own, next to the two font files.
    pub folder: &'a Path,
    /// Its speech, as long as the slot or shorter.
    pub speech: &'a Path,
    pub slot: Slot,
}

impl Segment<'_> {
    pub(super) fn frames(&self) -> u64 {
        self.slot.length_ms * FRAMES_PER_SECOND / 1_000
    }

    /// Renders it; `on_frame` hears how many frames are done.
    pub(super) async fn render(
        &self,
        slide: &Slide,
        ffmpeg: &Tool,
        mut on_frame: impl FnMut(u64),
    ) -> Result<PathBuf, MediaError> {
        let filter = format!("{};{}", self.picture(&self.drawn(slide).await?), self.sound());
        let call = Call {
            tool: ffmpeg,
            doing: format!("to render the segment of scene {}", self.number),
            folder: self.folder,
            arguments: self.arguments(filter)?,
            stdin: None,
        };
        call.run(|line| {
            if let Some(frame) = line.strip_prefix("frame=").and_then(|frame| frame.trim().parse().ok()) {
                on_frame(frame);
            }
        })
        .await?;
        Ok(self.folder.join(SEGMENT))
    }

    /// Draws only its slide, without loss.
    pub(super) async fn draw(&self, slide: &Slide, ffmpeg: &Tool) -> Result<PathBuf, MediaError> {
        let mut arguments = words("-hide_banner -nostdin -loglevel error -y -filter_complex");
        arguments.push(format!("{}[picture]", self.drawn(slide).await?));
        arguments.extend(words("-map [picture] -frames:v 1"));
        arguments.push(PICTURE.to_owned());
        let doing = format!("to draw the slide of scene {}", self.number);
        Call { tool: ffmpeg, doing, folder: self.folder, arguments, stdin: None }.output().await?;
        Ok(self.folder.join(PICTURE))
    }

    /// The filter that shows what was drawn for the whole segment: the loop repeats the one frame.
    fn picture(&self, drawn: &str) -> String {
        let frames = self.frames();
        format!(
            "{drawn},{VIDEO_COLORS},loop=loop=-1:size=1:start=0,setpts=N/{FRAMES_PER_SECOND}/TB,trim=end_frame={frames}[picture]"
        )
    }

    /// The filter that draws the slide once. Words are in files; the filter holds only numbers, colours and names that are made here.
    async fn drawn(&self, slide: &Slide) -> Result<String, MediaError> {
        let mut filter =
            format!("color=c={BACKGROUND}:s={WIDTH}x{HEIGHT}:r={FRAMES_PER_SECOND}:d=0.04,format=rgb24");
        for (index, drawing) in slide.drawings.iter().enumerate() {
            match drawing {
                Drawing::Box { x, y, width, height, color } => {
                    filter
                        .push_str(&format!(",drawbox=x={x}:y={y}:w={width}:h={height}:color={color}:t=fill"));
                }
                Drawing::Line { text, bold, size, color, place, baseline } => {
                    let name = format!("line{index:02}.txt");
                    let path = self.folder.join(&name);
                    let text = in_direction(text, *place);
                    tokio::fs::write(&path, text).await.map_err(MediaError::io("writing", &path))?;
                    let font = if *bold { "bold" } else { "regular" };
                    let x = match place {
                        Across::From(x) => x.to_string(),
                        Across::UpTo(x) => format!("{x}-text_w"),
                    };
                    filter.push_str(&format!(
                        ",drawtext=fontfile=../{font}.font:textfile={name}:expansion=none:fontsize={size}:fontcolor={color}:x={x}:y={baseline}-ascent"
                    ));
                }
            }
        }
        Ok(filter)
    }

    /// The filter that makes the speech exactly as long as the pictures, in whole AAC frames, the priming one included.
    fn sound(&self) -> String {
        let samples = self.slot.length_ms * SAMPLES_PER_SECOND / 1_000 - AAC_FRAME;
        format!(
            "[0:a]aresample={SAMPLES_PER_SECOND},aformat=sample_fmts=fltp:channel_layouts=mono,apad,atrim=end_sample={samples},asetpts=N+{AAC_FRAME}[sound]"
        )
    }

    fn arguments(&self, filter: String) -> Result<Vec<String>, MediaError> {
        let speech = self.speech.to_str().ok_or_else(|| MediaError::ConfigInvalid {
            setting: "LONGTAKE_ARTIFACTS",
            problem: format!("`{}` is not valid Unicode", self.speech.display()),
        })?;
        // One thread, here and in the encoder: segments are what runs side by side, and their bytes do not depend on the machine.
        // `file:` keeps a path with a colon in it from being read as a protocol.
        let mut arguments = words(
            "-hide_banner -nostdin -loglevel error -y -progress pipe:1 -stats_period 0.5 -filter_complex_threads 1 -i",
        );
        arguments.push(format!("file:{speech}"));
        arguments.push("-filter_complex".to_owned());
        arguments.push(filter);
        arguments.extend(words("-map [picture] -map [sound] -threads 1"));
        arguments.extend(words(VIDEO_ENCODING));
        arguments.extend(words("-f mp4"));
        arguments.push(SEGMENT.to_owned());
        Ok(arguments)
    }
}

/// drawtext takes every line as one that runs from left to right; one that does not is embedded in marks that say so. They are not
/// drawn.
fn in_direction(line: &str, place: Across) -> String {
    match place {
        Across::UpTo(_) if crate::text::has_right_to_left(line) => format!("\u{202B}{line}\u{202C}"),
        Across::From(_) | Across::UpTo(_) => line.to_owned(),
    }
}

/// Options that hold no space.
pub(super) fn words(options: &str) -> Vec<String> {
    options.split_whitespace().map(str::to_owned).collect()
}
