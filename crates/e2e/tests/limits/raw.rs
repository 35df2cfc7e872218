//! A client of HTTP/2 that keeps to no rule: it writes the frames that it is told to, and answers nothing by itself.
//!
//! Frames and header fields as in RFC 9113 and RFC 7541; no compression beyond the static table is needed to write.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a frame that is to come may take.
const SOON: Duration = Duration::from_secs(20);

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;

/// On DATA and HEADERS: nothing more comes on this stream.
pub const END_STREAM: u8 = 1;
/// On PING and SETTINGS: an answer.
pub const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

pub const CANCEL: u32 = 8;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RESET, and that of GO_AWAY behind its last stream.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GO_AWAY { 4 } else { 0 };
        self.payload.get(at..at + 4).map_or(0, |code| u32::from_be_bytes(code.try_into().expect("4 bytes")))
    }

    /// The value of a setting of SETTINGS.
    pub fn setting(&self, id: u16) -> Option<u32> {
        let mut settings = self.payload.chunks_exact(6);
        let found = settings.find(|setting| setting[..2] == id.to_be_bytes())?;
        Some(u32::from_be_bytes(found[2..].try_into().expect("4 bytes")))
    }
}

pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    /// Connects, and says nothing.
    pub async fn silent(port: u16) -> Peer {
        Peer { stream: TcpStream::connect(("127.0.0.1", port)).await.expect("somebody listens") }
    }

    /// Connects, and says that it speaks HTTP/2.
    pub async fn connect(port: u16) -> Peer {
        let mut peer = Peer::silent(port).await;
        peer.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        peer
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the connection stands");
    }

    /// The next frame; none when the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        tokio::time::timeout(SOON, self.stream.read_exact(&mut head)).await.expect("in time").ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame that is wanted; none when the connection is closed before.
    pub async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Waits until the connection is closed.
    pub async fn closed(&mut self) {
        self.until(|_| false).await;
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The beginning of a gRPC call: its headers, after which messages are to come.
pub fn begin(stream: u32, path: &str) -> Vec<u8> {
    // Indexed: `:method: POST`, `:scheme: http`. Literal with an indexed name: `:path`, `:authority`, `content-type`.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(&[0x04][..], path), (&[0x01], "localhost"), (&[0x0f, 0x10], "application/grpc")] {
        block.extend(name);
        text(&mut block, value);
    }
    block.push(0x00);
    text(&mut block, "te");
    text(&mut block, "trailers");
    frame(HEADERS, END_HEADERS, stream, &block)
}

fn text(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
    block.extend(text.as_bytes());
}

/// The rest of a gRPC call whose request is the empty message.
pub fn empty_message(stream: u32) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, &[0; 5])
}

pub fn reset(stream: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &CANCEL.to_be_bytes())
}
