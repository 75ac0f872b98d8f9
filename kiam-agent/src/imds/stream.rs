//! The stream of a pod's connection for hyper. It keeps the phase current and closes without losing the answer.

use super::{limits::LINGER_LEN_MAX, phase::Phase};
use socket2::SockRef;
use std::{
    io::{self, IoSlice, Read as _},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};

/// Bytes to discard with one read.
const DISCARD_LEN: usize = 4 * 1024;

/// A TCP stream that keeps `phase` current.
pub(super) struct Stream<'a> {
    tcp: TcpStream,
    phase: &'a Phase,
    stop: watch::Receiver<bool>,
    ended: bool,
    discarded: usize,
}

impl<'a> Stream<'a> {
    pub(super) const fn new(tcp: TcpStream, phase: &'a Phase, stop: watch::Receiver<bool>) -> Self {
        Self { tcp, phase, stop, ended: false, discarded: 0 }
    }

    /// Reads. Once the agent stops, it also reads bytes whose arrival the runtime has not noticed yet, so that an idle
    /// connection with an unread request is not ended.
    fn poll_arrived(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.tcp).poll_read(context, buffer);
        if polled.is_pending() && *self.stop.borrow() {
            match (&*SockRef::from(&self.tcp)).read(buffer.initialize_unfilled()) {
                Ok(len) => buffer.advance(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
            return Poll::Ready(Ok(()));
        }
        polled
    }

    /// Reads until the client closes, or [`LINGER_LEN_MAX`] bytes are discarded.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); DISCARD_LEN];
        while self.discarded < LINGER_LEN_MAX {
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.tcp).poll_read(context, &mut buffer))?;
            match buffer.filled().len() {
                0 => break,
                len => self.discarded += len,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.poll_arrived(context, buffer))?;
        if buffer.filled().len() > before {
            self.phase.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream<'_> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tcp).poll_flush(context))?;
        self.phase.flushed();
        Poll::Ready(Ok(()))
    }

    /// Closes the sending side, then reads what the client still sends: closing with unread input makes the kernel send
    /// a reset, which can overtake the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(Pin::new(&mut self.tcp).poll_shutdown(context))?;
            self.ended = true;
            self.phase.linger();
        }
        self.poll_discard(context)
    }
}
