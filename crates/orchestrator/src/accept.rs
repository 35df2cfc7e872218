//! Connections as they come in, each with a time in which it has to get somewhere.
//!
//! hyper asks a connection whether it lives only once it has said that it speaks HTTP/2, and has no deadline for the headers of
//! HTTP/1 unless it is driven by hand: whoever connects and is silent would be kept for ever.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// What a client of HTTP/2 says first. Source: RFC 9113, section 3.4.
const PREFACE_BYTES: usize = 24;
/// How long accepting pauses after a failure, for example when no more files can be opened.
const BREATH: Duration = Duration::from_millis(100);

/// A listener for HTTP/2: connections that have not said so within `hello` are closed.
pub fn http2(listener: TcpListener, hello: Duration) -> impl Stream<Item = io::Result<Prompt>> {
    futures_util::stream::unfold(listener, move |listener| async move {
        let (stream, _) = accept(&listener).await;
        Some((Ok(Prompt::new(stream, hello, PREFACE_BYTES)), listener))
    })
}

/// A listener for HTTP/1: connections end after `whole`, whatever they did.
pub struct Http1 {
    /// Where they come from.
    pub listener: TcpListener,
    /// How long one may last.
    pub whole: Duration,
}

impl axum::serve::Listener for Http1 {
    type Io = Prompt;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Prompt, SocketAddr) {
        let (stream, from) = accept(&self.listener).await;
        (Prompt::new(stream, self.whole, usize::MAX), from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // Slower without, and no worse.
                let _ = stream.set_nodelay(true);
                return (stream, from);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// A connection on which so many bytes have to arrive in time; else reading from it fails.
pub struct Prompt {
    stream: TcpStream,
    /// How many more, and by when; none once they are there.
    wanted: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Prompt {
    fn new(stream: TcpStream, within: Duration, bytes: usize) -> Prompt {
        Prompt { stream, wanted: Some((bytes, Box::pin(tokio::time::sleep(within)))) }
    }
}

impl AsyncRead for Prompt {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some((bytes, end)) = &mut this.wanted else {
            return Pin::new(&mut this.stream).poll_read(context, into);
        };
        if end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, into))?;
        *bytes = bytes.saturating_sub(into.filled().len() - before);
        if *bytes == 0 {
            this.wanted = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl Connected for Prompt {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}
