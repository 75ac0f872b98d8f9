//! Pods that ask without a pause while something happens to the agents.

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

/// Between two requests of one client: it shall keep asking, not keep the machine busy.
const PAUSE: Duration = Duration::from_millis(3);

/// A pod and its role.
pub(crate) type Asker<'a> = (&'a PodNetwork, &'a str);

/// What became of all requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answered with the pod's own role, or credentials.
    pub(crate) served: usize,
    /// Answered with 503: ask again.
    pub(crate) busy: usize,
    /// The connection ended before the answer did.
    pub(crate) cut: usize,
    /// Neither: refused, or no answer for seconds; and when.
    odd: Vec<String>,
    /// Roles, and the access keys that their pods were given.
    keys: BTreeSet<(String, String)>,
}

impl Tally {
    /// Asserts that every request was answered, with 503 at worst.
    pub(crate) fn expect_all_answered(&self) -> Result<()> {
        ensure!(self.odd.is_empty() && self.cut == 0, "{self:?}");
        ensure!(self.served + self.busy > 0, "nobody asked");
        Ok(())
    }

    /// Asserts that every request was answered with what was asked for.
    pub(crate) fn expect_all_served(&self) -> Result<()> {
        self.expect_all_answered()?;
        ensure!(self.busy == 0, "{self:?}");
        Ok(())
    }

    /// Asserts that no request was refused or left without an answer; connections that ended early are at most so many.
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
                ensure!(answer.text() == role, "{}: {role} is told {answer:?}", leaks::OTHER_ROLE);
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

/// Has each pod ask for its role and its credentials over both families, on new connections, as long as `act` runs. A
/// role that is another pod's is an error, at once or, for credentials, when STS is asked whose they are.
pub(crate) fn during<T>(
    askers: &[Asker<'_>],
    system: &mut System,
    act: impl FnOnce(&mut System) -> Result<T>,
) -> Result<(T, Tally)> {
    let stop = AtomicBool::new(false);
    let (acted, tally) = thread::scope(|scope| {
        let clients: Vec<_> = askers
            .iter()
            .flat_map(|&(pod, role)| BOTH.map(|imds| (pod, role, imds)))
            .map(|(pod, role, imds)| {
                scope.spawn({
                    let stop = &stop;
                    move || ask_until(stop, pod, role, imds)
                })
            })
            .collect();
        let acted = act(system);
        stop.store(true, Relaxed);
        let mut tally = Tally::default();
        for client in clients {
            match client.join().ok().context("a client panicked").flatten() {
                Ok(part) => tally.add(part),
                Err(error) => return (acted, Err(error)),
            }
        }
        (acted, Ok(tally))
    });
    let (acted, tally) = (acted?, tally?);
    for (role, key) in &tally.keys {
        let arn = Sts::identity_of(&system.topology.uplink, key)?;
        ensure!(arn.contains(&format!(":assumed-role/{role}/")), "{}: {role} was given {arn}", leaks::OTHER_ROLE);
    }
    Ok((acted, tally))
}

fn ask_until(stop: &AtomicBool, pod: &PodNetwork, role: &str, imds: IpAddr) -> Result<Tally> {
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
            // Each has asked, however soon it is over.
            if stop.load(Relaxed) {
                break;
            }
            thread::sleep(PAUSE);
        }
        Ok(tally)
    })
}
