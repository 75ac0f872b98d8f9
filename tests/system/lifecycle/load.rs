//! Pods that send requests without a pause while something happens to the agents.

use anyhow::{Context as _, Result, bail, ensure};
use kiam_tests::{
    clients::{Answer, BOTH, PATIENCE, Pod, ROLES, Reply},
    fakes::sts::Sts,
    leaks,
    node::topology::PodNetwork,
    system::System,
};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Pause between two requests of a client: the client must not keep the machine busy.
const PAUSE: Duration = Duration::from_millis(3);

/// A pod and its role.
pub(crate) type Client<'a> = (&'a PodNetwork, &'a str);

/// Outcomes of all requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answered with the pod's own role, or with credentials.
    pub(crate) served: usize,
    /// Answered with 503, to be repeated.
    pub(crate) busy: usize,
    /// The connection ended before the answer was complete.
    pub(crate) cut: usize,
    /// Other outcomes, such as refused or no answer for seconds, with their time.
    odd: Vec<String>,
    /// Roles, and the access keys that their pods got.
    keys: BTreeSet<(String, String)>,
}

impl Tally {
    /// Asserts that every request was answered, with 503 at worst.
    pub(crate) fn expect_all_answered(&self) -> Result<()> {
        ensure!(self.odd.is_empty() && self.cut == 0, "{self:?}");
        ensure!(self.served + self.busy > 0, "no request was sent");
        Ok(())
    }

    /// Asserts that every request was served.
    pub(crate) fn expect_all_served(&self) -> Result<()> {
        self.expect_all_answered()?;
        ensure!(self.busy == 0, "{self:?}");
        Ok(())
    }

    /// Asserts that no request was refused or left without an answer, and that at most `most` connections ended early.
    pub(crate) fn expect_cut_at_most(&self, most: usize) -> Result<()> {
        ensure!(self.odd.is_empty() && self.cut <= most && self.served > 0, "{self:?}");
        Ok(())
    }

    fn add(&mut self, other: Self) {
        let Self { served, busy, cut, odd, keys } = other;
        self.served += served;
        self.busy += busy;
        self.cut += cut;
        self.odd.extend(odd);
        self.keys.extend(keys);
    }

    fn note(&mut self, role: &str, answer: &Answer, path: &str) -> Result<()> {
        match answer.status {
            503 => self.busy += 1,
            200 if path == ROLES => {
                ensure!(answer.text() == role, "{}: the pod with {role} got {answer:?}", leaks::OTHER_ROLE);
                self.served += 1;
            }
            200 => {
                let key = answer.json()?["AccessKeyId"].as_str().context("an AccessKeyId")?.to_owned();
                self.keys.insert((role.to_owned(), key));
                self.served += 1;
            }
            _ => bail!("{role}: {answer:?}"),
        }
        Ok(())
    }
}

/// Makes each pod request its role and its credentials over both families, on new connections, as long as `act` runs.
/// Another pod's role is an error: at once, or for credentials when STS reports their identity.
pub(crate) fn during<T>(
    clients: &[Client<'_>],
    system: &mut System,
    act: impl FnOnce(&mut System) -> Result<T>,
) -> Result<(T, Tally)> {
    let stop = AtomicBool::new(false);
    let (acted, tally) = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter()
            .flat_map(|&(pod, role)| BOTH.map(|imds| (pod, role, imds)))
            .map(|(pod, role, imds)| {
                scope.spawn({
                    let stop = &stop;
                    move || request_until(stop, pod, role, imds)
                })
            })
            .collect();
        let acted = act(system);
        stop.store(true, Relaxed);
        let mut tally = Tally::default();
        for thread in threads {
            match thread.join().ok().context("a client panicked").flatten() {
                Ok(part) => tally.add(part),
                Err(error) => return (acted, Err(error)),
            }
        }
        (acted, Ok(tally))
    });
    let (acted, tally) = (acted?, tally?);
    for (role, key) in &tally.keys {
        let arn = Sts::identity_of(&system.topology.uplink, key)?;
        ensure!(
            arn.contains(&format!(":assumed-role/{role}/")),
            "{}: the pod with {role} got {arn}",
            leaks::OTHER_ROLE
        );
    }
    Ok((acted, tally))
}

fn request_until(stop: &AtomicBool, pod: &PodNetwork, role: &str, imds: IpAddr) -> Result<Tally> {
    let start = Instant::now();
    let credentials = format!("{ROLES}{role}");
    Pod::new(pod).run(|| {
        let mut tally = Tally::default();
        for path in [ROLES, &credentials].into_iter().cycle() {
            match Pod::attempt_here(imds, path, PATIENCE) {
                Reply::Answer(answer) => tally.note(role, &answer, path)?,
                Reply::Reset | Reply::Closed => tally.cut += 1,
                reply => tally.odd.push(format!("{role} at {imds} after {:?}: {reply:?}", start.elapsed())),
            }
            // Each client sends a request, however soon `act` is over.
            if stop.load(Relaxed) {
                break;
            }
            thread::sleep(PAUSE);
        }
        Ok(tally)
    })
}
