//! Asks the parent who opened a connection. One task speaks for all connections.

use crate::attestation::{ANSWER_LEN, Answer, Origin, Question};
use anyhow::{Context as _, bail};
use std::{collections::HashMap, io, os::unix::net};
use tokio::{
    net::UnixDatagram,
    sync::{mpsc, oneshot},
};

/// Most questions that wait for their turn: one for each connection that may be open.
const WAITING_MAX: usize = 1_024;
/// Most questions on their way: few enough for the socket's buffers, so that neither side ever waits for the other to
/// read while the other waits for it.
const IN_FLIGHT_MAX: usize = 64;

type Pending = (Question, oneshot::Sender<Origin>);

/// Where to ask.
#[derive(Debug, Clone)]
pub(crate) struct AttestationClient(mpsc::Sender<Pending>);

impl AttestationClient {
    /// Asks at once; the answer comes when it comes. `None`: too many questions wait, or the parent is gone.
    pub(crate) fn ask(&self, question: Question) -> impl Future<Output = Option<Origin>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.try_send((question, answer)).is_ok();
        async move { if sent { answered.await.ok() } else { None } }
    }
}

#[cfg(test)]
impl AttestationClient {
    /// One that knows nothing.
    pub(super) fn of_nobody() -> Self {
        Self(mpsc::channel(1).0)
    }
}

/// The one to ask, and the task that passes questions on and answers back. It ends when the parent does not answer any
/// more.
///
/// # Errors
/// The kernel's.
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
    // One byte more than an answer has: a longer one is seen.
    let mut bytes = [0; ANSWER_LEN + 1];
    loop {
        tokio::select! {
            received = socket.recv(&mut bytes) => {
                let len = received.context("waiting for the parent's answer")?;
                let Some(answer) = bytes.get(..len).and_then(Answer::from_bytes) else {
                    bail!("the parent does not tell any more who opens connections");
                };
                if asked.remove(&answer.id).is_some_and(|asker| asker.send(answer.origin).is_err()) {
                    tracing::trace!("a connection was over before it was known whose it was");
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
        Origin { interface, kubepods: true, owner: SocketOwner::Nobody }
    }

    fn question(interface: u32) -> Question {
        Question::new(interface, "10.0.0.7".parse().unwrap(), 1)
    }

    /// Answers each question with its own interface, `count` of them, the last of each ten first.
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
    async fn each_gets_its_own_answer_in_whatever_order_they_come() {
        let (ours, theirs) = pair();
        let parent = parent(theirs, 1_000);
        let (client, task) = open(ours).unwrap();
        let speaker = tokio::spawn(task);
        let asked: Vec<_> = (0..1_000).map(|interface| client.ask(question(interface))).collect();
        for (interface, asked) in asked.into_iter().enumerate() {
            assert_eq!(asked.await, Some(origin(u32::try_from(interface).unwrap())));
        }
        parent.join().unwrap();
        assert!(speaker.await.unwrap().unwrap_err().to_string().contains("does not tell any more"));
        assert_eq!(client.ask(question(1)).await, None, "with the parent gone nobody knows");
    }

    #[tokio::test]
    async fn a_parent_that_does_not_answer_is_asked_so_much_and_no_more() {
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
    async fn connections_that_are_over_leave_no_questions_behind() {
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
