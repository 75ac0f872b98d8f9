//! One connection of a pod, from its first byte to its last.

use super::{
    ImdsServer, answer,
    connection_limits::Slot,
    handler,
    limits::{HEAD_LEN_MAX, LINGER_TIME_MAX},
    peer::Peer,
    phase::Phase,
    stream::Stream,
};
use crate::source::CredentialSource;
use http::{HeaderValue, header::CONNECTION};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, Sleep, sleep_until, timeout},
};

/// The reason why a connection ended.
enum End {
    /// The pod or hyper ended it.
    Http(hyper::Result<()>),
    /// It exceeded a time limit.
    Late,
    /// Another pod took its slot.
    Evicted,
}

/// Serves the connection until it ends, exceeds a time limit, loses its slot, or the agent stops.
pub(super) async fn serve<S: CredentialSource>(
    server: Arc<ImdsServer<S>>,
    tcp: TcpStream,
    peer: Peer,
    slot: Slot,
    stop: watch::Receiver<bool>,
) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(peer = %peer.address, %error, "connection closed before it was served");
        return;
    }
    let phase = slot.phase();
    let service = service_fn(async |request| {
        let mut answer = handler::handle(&server, &peer, phase, request).await;
        if let Ok(answer) = &mut answer
            && *stop.borrow()
        {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    });
    let stream = TokioIo::new(Stream::new(tcp, phase, stop.clone()));
    // Header names in EC2's case: some scripts compare them literally.
    let connection =
        http1::Builder::new().max_buf_size(HEAD_LEN_MAX).title_case_headers(true).serve_connection(stream, service);
    let mut connection = pin!(connection);
    let mut watchdog = Watchdog::new(phase);
    let mut lost = pin!(slot.lost());
    let mut stopped_receiver = stop.clone();
    let mut stopped = pin!(stopped_receiver.wait_for(|stop| *stop));
    let (mut stopping, mut ending) = (false, false);
    let end = poll_fn(|context| {
        // Before the connection is polled: from then on it reads all bytes that have arrived.
        stopping = stopping || stopped.as_mut().poll(context).is_ready();
        if let Poll::Ready(result) = connection.as_mut().poll(context) {
            return Poll::Ready(End::Http(result));
        }
        // A new connection is about to carry a request. It and a request that has begun are answered; the answer then
        // ends the connection.
        if stopping && !ending && phase.is_resting() {
            ending = true;
            connection.as_mut().graceful_shutdown();
            // The connection may already be complete.
            context.waker().wake_by_ref();
        }
        if lost.as_mut().poll(context).is_ready() {
            return Poll::Ready(End::Evicted);
        }
        watchdog.poll(context).map(|()| End::Late)
    })
    .await;
    if let Some(reason) = reason(end, phase, &peer) {
        server.metrics.connection_ended(reason);
    }
}

/// Returns why the agent ended the connection; `None` if the client did.
fn reason(end: End, phase: &Phase, peer: &Peer) -> Option<&'static str> {
    match end {
        End::Http(Ok(())) => None,
        End::Http(Err(error)) => {
            tracing::debug!(peer = %peer.address, %error, "connection of a pod failed");
            error.is_parse().then_some("not-http")
        }
        End::Late => Some(phase.name()),
        End::Evicted => Some("evicted"),
    }
}

/// Wakes the connection's task at its phase's deadline. The timer is only moved when it would be late: a busy
/// connection moves it every other second, not with every request.
struct Watchdog<'a> {
    phase: &'a Phase,
    timer: Pin<Box<Sleep>>,
}

impl<'a> Watchdog<'a> {
    fn new(phase: &'a Phase) -> Self {
        Self { phase, timer: Box::pin(sleep_until(phase.deadline())) }
    }

    /// Ready once the deadline has passed.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut deadline = self.phase.deadline();
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            deadline = self.phase.deadline();
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// Answers 429 to a connection without a slot. The answer fits into an empty socket buffer; if it does not, the
/// connection just ends.
pub(super) async fn refuse(tcp: TcpStream, permit: OwnedSemaphorePermit, stop: watch::Receiver<bool>) {
    let phase = Phase::new(Instant::now());
    let mut stream = Stream::new(tcp, &phase, stop);
    let sent = timeout(LINGER_TIME_MAX, async {
        stream.write_all(answer::TOO_MANY_CONNECTIONS).await?;
        stream.shutdown().await
    });
    if !matches!(sent.await, Ok(Ok(()))) {
        tracing::trace!("connection ended before its refusal was sent");
    }
    drop(permit);
}
