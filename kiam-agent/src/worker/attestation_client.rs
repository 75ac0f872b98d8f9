//! Asks the parent which pod opened a connection. One task sends the questions of all connections.

use crate::attestation::{ANSWER_LEN, Answer, Origin, Question};
use anyhow::{Context as _, bail};
use std::{collections::HashMap, io, os::unix::net};
use tokio::{
    net::UnixDatagram,
    sync::{mpsc, oneshot},
};

/// Most questions that wait to be sent: one for each connection that may be open.
const WAITING_MAX: usize = 1_024;
/// Most questions without an answer: few enough for the socket's buffers, so that the two sides cannot block each other
/// by waiting for the other one to read.
const IN_FLIGHT_MAX: usize = 64;

type Pending = (Question, oneshot::Sender<Origin>);

/// Handle for asking questions.
#[derive(Debug, Clone)]
pub(crate) struct AttestationClient(mpsc::Sender<Pending>);

impl AttestationClient {
    /// Queues the question at once, and returns a future of the answer: `None` if too many questions wait, or the
    /// parent has ended.
    pub(crate) fn ask(&self, question: Question) -> impl Future<Output = Option<Origin>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.try_send((question, answer)).is_ok();
        async move { if sent { answered.await.ok() } else { None } }
    }
}

#[cfg(test)]
impl AttestationClient {
    /// Returns a client without a parent.
    pub(super) fn disconnected() -> Self {
        Self(mpsc::channel(1).0)
    }
}

/// Returns a client, and the task that sends its questions and receives the answers. The task ends when the parent
/// stops answering.
pub(super) fn open(
    socket: net::UnixDatagram,
) -> io::Result<(AttestationClient, impl Future<Output = anyhow::Result<()>> + Send)> {
    socket.set_nonblocking(true)?;
    let socket = UnixDatagram::from_std(socket)?;
    let (ask, questions) = mpsc::channel(WAITING_MAX);
    Ok((AttestationClient(ask), converse(socket, questions)))
}

async fn converse(socket: UnixDatagram, mut questions: mpsc::Receiver<Pending>) -> anyhow::Result<()> {
    let mut asked: HashMap<u64, oneshot::Sender<Origin>> = HashMap::new();
    let mut next_id = 0;
    // One byte more than an answer has, to detect a longer one.
    let mut bytes = [0; ANSWER_LEN + 1];
    loop {
        tokio::select! {
            received = socket.recv(&mut bytes) => {
                let len = received.context("waiting for the parent's answer")?;
                let Some(answer) = bytes.get(..len).and_then(Answer::from_bytes) else {
                    bail!("the parent no longer attests connections");
                };
                if asked.remove(&answer.id).is_some_and(|asker| asker.send(answer.origin).is_err()) {
                    tracing::trace!("a connection ended before it was attested");
                }
            }
            Some((question, asker)) = questions.recv(), if asked.len() < IN_FLIGHT_MAX => {
                let id = next_id;
                next_id += 1;
                asked.insert(id, asker);
                socket.send(&Question { id, ..question }.to_bytes()).await.context("asking the parent")?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::{QUESTION_LEN, SocketOwner};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::thread;

    fn pair() -> (net::UnixDatagram, net::UnixDatagram) {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (a.into(), b.into())
    }

    fn origin(interface: u32) -> Origin {
        Origin { interface, kubepods: true, owner: SocketOwner::NotAPod }
    }

    fn question(interface: u32) -> Question {
        Question::new(interface, "10.0.0.7".parse().unwrap(), 1)
    }

    /// Answers `count` questions with their own interfaces, each ten in reverse order.
    fn parent(socket: net::UnixDatagram, count: usize) -> thread::JoinHandle<()> {
        thread::spawn(move || {
            let mut bytes = [0; QUESTION_LEN];
            let mut kept = Vec::new();
            for _ in 0..count {
                let len = socket.recv(&mut bytes).unwrap();
                kept.push(Question::from_bytes(&bytes[..len]).unwrap());
                if kept.len() == 10 {
                    for Question { id, interface, .. } in kept.drain(..).rev() {
                        socket.send(&Answer { id, origin: origin(interface) }.to_bytes()).unwrap();
                    }
                }
            }
        })
    }

    #[tokio::test]
    async fn answers_in_any_order_reach_their_questions() {
        let (ours, theirs) = pair();
        let parent = parent(theirs, 1_000);
        let (client, task) = open(ours).unwrap();
        let speaker = tokio::spawn(task);
        let asked: Vec<_> = (0..1_000).map(|interface| client.ask(question(interface))).collect();
        for (interface, asked) in asked.into_iter().enumerate() {
            assert_eq!(asked.await, Some(origin(u32::try_from(interface).unwrap())));
        }
        parent.join().unwrap();
        assert!(speaker.await.unwrap().unwrap_err().to_string().contains("no longer attests"));
        assert_eq!(client.ask(question(1)).await, None, "the parent has ended");
    }

    #[tokio::test]
    async fn silent_parent_gets_a_bounded_number_of_questions() {
        let (ours, _theirs) = pair();
        let (client, task) = open(ours).unwrap();
        let speaker = tokio::spawn(task);
        let mut asked = Vec::new();
        for _ in 0..10 * WAITING_MAX {
            asked.push(client.ask(question(1)));
            tokio::task::yield_now().await;
        }
        let refused = asked.into_iter().filter_map(futures::FutureExt::now_or_never).count();
        assert_eq!(refused, 10 * WAITING_MAX - WAITING_MAX - IN_FLIGHT_MAX);
        speaker.abort();
    }

    #[tokio::test]
    async fn ended_connections_leave_no_questions() {
        let (ours, theirs) = pair();
        let parent = parent(theirs, 1_000);
        let (client, task) = open(ours).unwrap();
        let speaker = tokio::spawn(task);
        for _ in 0..99 {
            drop((0..10).map(|_| client.ask(question(1))).collect::<Vec<_>>());
            tokio::task::yield_now().await;
        }
        let last: Vec<_> = (0..10).map(|_| client.ask(question(2))).collect();
        assert_eq!(futures::future::join_all(last).await, [Some(origin(2)); 10]);
        parent.join().unwrap();
        drop(speaker.await);
    }
}
