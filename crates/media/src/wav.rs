//! Uncompressed speech: 16-bit PCM in RIFF files, read and written by hand because that is all there is to it. Blocking: call it
//! from a blocking task.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::timing::{Slot, Timing};

/// Samples of one channel or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wav {
    pub rate: u32,
    pub channels: u16,
    /// Interleaved.
    pub samples: Vec<i16>,
}

/// A narration of one scene is far below this.
const MOST_BYTES: u64 = 256 << 20;

impl Wav {
    /// Reads a file. Its sizes are believed only as far as there are bytes: programs that write to pipes do not know them.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        BufReader::new(File::open(path)?).take(MOST_BYTES).read_to_end(&mut bytes)?;
        Self::parse(&bytes).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))
    }

    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() < 12 || !bytes.starts_with(b"RIFF") || &bytes[8..12] != b"WAVE" {
            return Err("not a WAV file");
        }
        let mut rest = &bytes[12..];
        let mut format = None;
        while let [a, b, c, d, s0, s1, s2, s3, body @ ..] = rest {
            let size = u32::from_le_bytes([*s0, *s1, *s2, *s3]) as usize;
            let end = size.min(body.len());
            match &[*a, *b, *c, *d] {
                b"fmt " => format = Some(parse_format(&body[..end])?),
                b"data" => {
                    let (rate, channels) = format.ok_or("samples before their format")?;
                    let pairs = body[..end].chunks_exact(2);
                    let samples = pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
                    return Ok(Self { rate, channels, samples });
                }
                _ => {}
            }
            rest = &body[(size + size % 2).min(body.len())..];
        }
        Err("no samples")
    }

    /// Writes a file.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = Writer::create(path, self.rate, self.channels, self.samples.len())?;
        file.add(&self.samples)?;
        file.finish()
    }

    /// Length in milliseconds, rounded up.
    pub(crate) fn millis(&self) -> u64 {
        let per_second = u64::from(self.rate) * u64::from(self.channels);
        (self.samples.len() as u64 * 1_000).div_ceil(per_second.max(1))
    }

    /// Without the silence at both ends that the voice left.
    pub(crate) fn trimmed(mut self) -> Self {
        /// One in a thousand of full scale: below what a synthetic voice says.
        const SILENCE: i16 = 32;
        let heard = |sample: &i16| sample.unsigned_abs() > SILENCE.unsigned_abs();
        let end = self.samples.iter().rposition(heard).map_or(0, |at| at + 1);
        let start = self.samples.iter().position(heard).unwrap_or(0);
        let channels = usize::from(self.channels.max(1));
        let (start, end) = (start / channels * channels, end.div_ceil(channels) * channels);
        self.samples.truncate(end);
        self.samples.drain(..start.min(end));
        self
    }

    /// At a comfortable, even loudness: the loudest sample at -3 dB of full scale.
    pub(crate) fn normalized(mut self) -> Self {
        const TARGET: f32 = 23_197.0;
        let peak = self.samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
        // What is nearly silent is noise or nothing; raising it would only make the noise heard.
        if peak < 256 {
            return self;
        }
        let gain = TARGET / f32::from(peak);
        for sample in &mut self.samples {
            *sample = (f32::from(*sample) * gain).round() as i16;
        }
        self
    }

    /// In its slot: silence before and after, of exactly the slot's length.
    pub(crate) fn in_slot(self, timing: &Timing) -> (Self, Slot) {
        let slot = timing.slot(self.millis());
        let count =
            |millis: u64| (millis * u64::from(self.rate) / 1_000) as usize * usize::from(self.channels);
        let mut samples = vec![0; count(slot.speech_start_ms)];
        samples.extend(self.samples);
        samples.resize(count(slot.length_ms), 0);
        (Self { samples, ..self }, slot)
    }
}

fn parse_format(body: &[u8]) -> Result<(u32, u16), &'static str> {
    let [t0, t1, c0, c1, r0, r1, r2, r3, _, _, _, _, _, _, b0, b1, ..] = body else {
        return Err("a format that is too short");
    };
    let (tag, bits) = (u16::from_le_bytes([*t0, *t1]), u16::from_le_bytes([*b0, *b1]));
    let (channels, rate) = (u16::from_le_bytes([*c0, *c1]), u32::from_le_bytes([*r0, *r1, *r2, *r3]));
    // 0xFFFE is the extended way to say the same.
    if !matches!(tag, 1 | 0xFFFE) || bits != 16 {
        return Err("not 16-bit PCM");
    }
    if !(1..=8).contains(&channels) || !(8_000..=192_000).contains(&rate) {
        return Err("a channel count or sample rate out of range");
    }
    Ok((rate, channels))
}

/// Joins files of one format into one, without holding more than one of them in memory.
pub(crate) fn join(files: &[impl AsRef<Path>], into: &Path) -> io::Result<()> {
    let Some(first) = files.first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing to join"));
    };
    let first = Wav::read(first.as_ref())?;
    let mut samples = 0;
    for file in files {
        let wav = Wav::read(file.as_ref())?;
        if (wav.rate, wav.channels) != (first.rate, first.channels) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the files have different sample rates"));
        }
        samples += wav.samples.len();
    }
    let mut writer = Writer::create(into, first.rate, first.channels, samples)?;
    for file in files {
        writer.add(&Wav::read(file.as_ref())?.samples)?;
    }
    writer.finish()
}

struct Writer(BufWriter<File>);

impl Writer {
    fn create(path: &Path, rate: u32, channels: u16, samples: usize) -> io::Result<Self> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "longer than a WAV file can be");
        let bytes = u32::try_from(samples * 2).map_err(too_long)?;
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(b"RIFF")?;
        file.write_all(&bytes.saturating_add(36).to_le_bytes())?;
        file.write_all(b"WAVEfmt \x10\0\0\0\x01\0")?;
        file.write_all(&channels.to_le_bytes())?;
        file.write_all(&rate.to_le_bytes())?;
        file.write_all(&(rate * u32::from(channels) * 2).to_le_bytes())?;
        file.write_all(&(channels * 2).to_le_bytes())?;
        file.write_all(b"\x10\0data")?;
        file.write_all(&bytes.to_le_bytes())?;
        Ok(Self(file))
    }

    fn add(&mut self, samples: &[i16]) -> io::Result<()> {
        samples.iter().try_for_each(|sample| self.0.write_all(&sample.to_le_bytes()))
    }

    fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(samples: Vec<i16>) -> Wav {
        Wav { rate: 22_050, channels: 1, samples }
    }

    #[test]
    fn files_survive_the_way_through_disk_and_join() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a.wav"), folder.path().join("b.wav")];
        wav(vec![1, -2, 3]).write(&paths[0]).unwrap();
        wav(vec![4, i16::MIN]).write(&paths[1]).unwrap();
        let joined = folder.path().join("joined.wav");
        join(&paths, &joined).unwrap();
        assert_eq!(Wav::read(&joined).unwrap(), wav(vec![1, -2, 3, 4, i16::MIN]));
        assert_eq!(std::fs::metadata(&joined).unwrap().len(), 44 + 10);
    }

    #[test]
    fn sizes_that_lie_and_files_that_are_no_speech_are_refused_or_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        wav(vec![1, 2]).write(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Wav::parse(&bytes), Ok(wav(vec![1, 2])));
        bytes[34] = 8;
        assert_eq!(Wav::parse(&bytes), Err("not 16-bit PCM"));
        assert_eq!(Wav::parse(b"RIFF"), Err("not a WAV file"));
        assert_eq!(Wav::parse(&bytes[..30]), Err("a format that is too short"));
    }

    #[test]
    fn speech_is_trimmed_raised_and_put_in_its_slot() {
        let timing = Timing::default();
        let mut samples = vec![0; 5_000];
        samples.extend([1_000, -2_000, 500].repeat(7_350));
        samples.extend(vec![3; 9_000]);
        let spoken = wav(samples).trimmed().normalized();
        assert_eq!((spoken.millis(), spoken.samples.iter().min()), (1_000, Some(&-23_197)));
        let (placed, slot) = spoken.in_slot(&timing);
        assert_eq!(placed.millis(), slot.length_ms);
        assert_eq!(slot.length_ms % timing.grain_ms, 0);
        let start = (slot.speech_start_ms * 22_050 / 1_000) as usize;
        assert!(placed.samples[..start].iter().all(|&sample| sample == 0) && placed.samples[start] != 0);

        assert_eq!(wav(vec![1; 100]).trimmed().samples, Vec::<i16>::new());
        let (silence, slot) = wav(vec![]).in_slot(&timing);
        assert_eq!(silence.millis(), slot.length_ms);
    }
}
