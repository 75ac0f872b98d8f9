//! The truth: which pod is at which place, and since when; and the part of it that Kubernetes has reported so far.

use super::{
    EVENTS, SLOTS,
    report::{Report, Tally},
    watch::Watch,
};
use anyhow::Result;
use kiam_tests::{
    fakes::kube_api::{KubeApi, PodObject},
    system::Rpc,
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    rc::Rc,
};
use tokio::{sync::mpsc, time::Instant};

/// Namespaces of the pods; names are unique within each.
pub(super) const NAMESPACES: [&str; 3] = ["blue", "green", "grey"];

/// Evidence from the kernel about the pod that opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// Its uid, from its cgroup, and the age of its interface.
    Uid,
    /// The age of its interface alone.
    InterfaceAge,
}

/// An address of each family, which a pod has for itself as long as it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place(pub(super) u16);

impl Place {
    /// Returns a place of another slot.
    pub(super) fn elsewhere(self, rng: &mut fastrand::Rng) -> Self {
        let slot = self.0 / 2 + rng.u16(1..SLOTS);
        Self(2 * (slot % SLOTS) + rng.u16(..2))
    }

    pub(super) fn addresses(self) -> (Ipv4Addr, Ipv6Addr) {
        let [high, low] = self.0.to_be_bytes();
        (Ipv4Addr::new(10, 64, high, low), Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, self.0))
    }

    /// Returns the address of a random family.
    pub(super) fn address(self, rng: &mut fastrand::Rng) -> IpAddr {
        let (v4, v6) = self.addresses();
        if rng.bool() { v4.into() } else { v6.into() }
    }
}

/// A pod, from its scheduling on.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) uid: String,
    /// Unique role.
    pub(super) role: Option<String>,
    /// The object in Kubernetes.
    object: RefCell<PodObject>,
    /// Place at which Kubernetes reports it as running.
    shown: Cell<Option<Place>>,
    news: mpsc::UnboundedSender<(Instant, News)>,
}

impl Pod {
    pub(super) fn name(&self) -> String {
        self.object.borrow().name.clone()
    }

    pub(super) fn namespace(&self) -> String {
        self.object.borrow().namespace.clone()
    }

    /// Queues a report to Kubernetes, at this time or after all earlier ones.
    pub(super) fn report(&self, at: Instant, news: News) {
        // The receiver is gone if the pod is.
        drop(self.news.send((at, news)));
    }
}

/// A pod at a place, behind an interface of its own.
#[derive(Debug)]
pub(super) struct Stay {
    pub(super) pod: Rc<Pod>,
    pub(super) place: Place,
    /// Time when its interface appeared.
    pub(super) born: Instant,
    /// Time when the interface disappeared and the place became free.
    ended: Cell<Option<Instant>>,
    report: Cell<Option<Reported>>,
}

/// Report of a stay to Kubernetes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported {
    pub(super) at: Instant,
    /// Mark of the sentinel at that time.
    pub(super) mark: u64,
}

impl Stay {
    pub(super) fn end(&self) {
        self.ended.set(Some(Instant::now()));
    }

    pub(super) fn is_over(&self) -> bool {
        self.ended.get().is_some()
    }

    pub(super) fn report(&self) -> Option<Reported> {
        self.report.get()
    }

    /// Returns whether Kubernetes reports the pod at this place now because of this stay.
    pub(super) fn is_shown(&self) -> bool {
        self.report().is_some() && self.pod.shown.get() == Some(self.place)
    }
}

/// Report about a pod.
#[derive(Debug)]
pub(super) enum News {
    /// It is on its node, without a network.
    Created,
    /// It runs, and has an address.
    At(Rc<Stay>),
    /// It is being deleted, and still runs.
    Terminating,
    /// It has ended, with this phase.
    Ended(&'static str),
    /// It does not exist.
    Deleted,
}

/// The truth, and the observers of it.
pub(super) struct World {
    pub(super) knowledge: Knowledge,
    pub(super) kube: KubeApi,
    pub(super) rpc: Rpc,
    pub(super) watch: Watch,
    pub(super) tally: RefCell<Tally>,
    /// Stays of each place, in order: each has ended when the next begins.
    stays: RefCell<HashMap<Place, Vec<Rc<Stay>>>>,
    events: Cell<usize>,
    pods: Cell<u64>,
}

impl World {
    pub(super) fn new(knowledge: Knowledge, kube: KubeApi, rpc: Rpc) -> Self {
        let (watch, tally, stays, events, pods) = Default::default();
        Self { knowledge, kube, rpc, watch, tally, stays, events, pods }
    }

    /// Returns the completed part of the run, from 0 to 1.
    pub(super) fn progress(&self) -> f64 {
        self.events.get() as f64 / EVENTS as f64
    }

    pub(super) fn report(&self) -> Report {
        Report::new(&self.tally.borrow(), self.events.get(), self.pods.get())
    }

    /// Returns a pod that Kubernetes has not seen, and the queue of its reports. `name` is that of a pod that will be
    /// gone by then.
    pub(super) fn new_pod(
        &self,
        namespace: &str,
        name: Option<String>,
    ) -> (Rc<Pod>, mpsc::UnboundedReceiver<(Instant, News)>) {
        let serial = self.pods.get();
        self.pods.set(serial + 1);
        // Some have no role, and must not get another pod's.
        let role = (!serial.is_multiple_of(16)).then(|| format!("role-{serial}"));
        let name = name.unwrap_or_else(|| format!("pod-{serial}"));
        let uid = format!("11111111-0000-4000-8000-{serial:012x}");
        let unused = Place(0).addresses();
        let object = PodObject {
            uid: uid.clone(),
            addresses: None,
            phase: "Pending".to_owned(),
            bare: true,
            ..PodObject::running(namespace, &name, role.as_deref(), unused.0, unused.1)
        };
        let (news, heard) = mpsc::unbounded_channel();
        let pod = Pod { uid, role, object: RefCell::new(object), shown: Cell::default(), news };
        (Rc::new(pod), heard)
    }

    /// Makes a pod's interface appear.
    pub(super) fn move_in(&self, pod: &Rc<Pod>, place: Place) -> Rc<Stay> {
        let (pod, born) = (Rc::clone(pod), Instant::now());
        let stay = Rc::new(Stay { pod, place, born, ended: Cell::default(), report: Cell::default() });
        self.stays.borrow_mut().entry(place).or_default().push(Rc::clone(&stay));
        stay
    }

    /// Returns whether a matching stay was at this place at any moment since then.
    pub(super) fn was_there_since(&self, place: Place, since: Instant, is_it: impl Fn(&Stay) -> bool) -> bool {
        let stays = self.stays.borrow();
        let recent = stays.get(&place).into_iter().flatten().rev();
        recent.take_while(|stay| stay.ended.get().is_none_or(|ended| ended >= since)).any(|stay| is_it(stay))
    }

    /// Reports to Kubernetes now.
    pub(super) fn publish(&self, pod: &Pod, news: News) -> Result<()> {
        self.events.set(self.events.get() + 1);
        let mut object = pod.object.borrow_mut();
        match news {
            News::Created => {}
            News::At(stay) => {
                object.addresses = Some(stay.place.addresses());
                object.phase = "Running".to_owned();
                pod.shown.set(Some(stay.place));
                stay.report.set(Some(Reported { at: Instant::now(), mark: self.watch.mark() }));
            }
            News::Terminating => object.terminating = true,
            News::Ended(phase) => {
                object.phase = phase.to_owned();
                pod.shown.set(None);
            }
            News::Deleted => {
                pod.shown.set(None);
                return self.kube.delete_pod(&object.namespace, &object.name);
            }
        }
        self.kube.put_pod(&object);
        Ok(())
    }
}
