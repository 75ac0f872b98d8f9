//! The real binaries in a [`Topology`]: server and agent in the node's namespace, with a bpffs, folders and
//! certificates of their own, and the fakes that they need.

mod agent;
mod binaries;
mod footprint;
mod rpc;
mod server;

pub use agent::{ADMIN_PORT, Agent};
pub use binaries::Binaries;
pub use footprint::{BpfObjects, Footprint};
pub use rpc::Rpc;
pub use server::Server;

use crate::{
    clients::{Answer, Connection, Environment, Pod, Python},
    eventually::eventually,
    fakes::{
        canary::Canary,
        kube_api::{KubeApi, NamespaceObject, PodObject},
        pki::{End, Flaw, Pki},
        sts::{ACCOUNT, Sts},
    },
    node::{
        leftovers::unmount_below,
        owner::Folder,
        topology::{PodNetwork, Topology},
    },
};
use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use std::{
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Seconds until an expected change, on a machine that may have other work.
const SOON_SECONDS: u64 = 20;
/// The same as a duration.
pub const SOON: Duration = Duration::from_secs(SOON_SECONDS);
/// Number of the pod that sends the control request; no test uses it.
const CONTROL_POD: u8 = 250;

/// A node with everything around it.
#[derive(Debug)]
pub struct System {
    // Dropped in this order: first the processes, last their network and folder.
    /// The agent, if one was started.
    pub agent: Option<Agent>,
    /// The server, if one was started.
    pub server: Option<Server>,
    /// STS.
    pub sts: Option<Sts>,
    /// Kubernetes.
    pub kube: KubeApi,
    /// The fake IMDS, which must never receive a packet of a pod.
    pub canary: Canary,
    /// The CA of agent and server.
    pub pki: Pki,
    /// The Python of the clients.
    pub python: Python,
    /// The binaries under test.
    pub binaries: Binaries,
    /// More flags for the agent.
    pub agent_flags: Vec<String>,
    /// More flags for the server.
    pub server_flags: Vec<String>,
    /// The network.
    pub topology: Topology,
    folder: Folder,
}

impl System {
    /// Makes everything but the binaries under test, and runs the control: a pod's request reaches the canary.
    pub fn stage() -> Result<Self> {
        let mut system = Self::stage_datapath()?;
        system.sts = Some(Sts::start(&system.topology.uplink, &system.python, system.folder.path())?);
        let control = system.topology.add_pod(CONTROL_POD)?;
        system.canary.control_reaches(&system.topology, &control)?;
        Ok(system)
    }

    /// Makes what the datapath alone needs: no STS, and no control, which the test must run itself.
    pub fn stage_datapath() -> Result<Self> {
        let topology = Topology::create()?;
        let folder = Folder::create("system")?;
        let bpffs = folder.path().join("bpffs");
        std::fs::create_dir(&bpffs)?;
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).context("mount a bpffs")?;
        Ok(Self {
            agent: None,
            server: None,
            sts: None,
            kube: KubeApi::start(&topology.node)?,
            canary: Canary::start(&topology.uplink)?,
            pki: Pki::create()?,
            python: Python::find()?,
            binaries: Binaries::find()?,
            agent_flags: Vec::new(),
            server_flags: Vec::new(),
            topology,
            folder,
        })
    }

    /// Starts server and agent and waits until pods can be served.
    pub fn start(&mut self) -> Result<()> {
        self.start_server()?;
        self.start_agent()
    }

    /// Starts the server and waits until it is ready.
    pub fn start_server(&mut self) -> Result<()> {
        self.spawn_server()?.wait_ready()
    }

    /// Starts the server and does not wait.
    pub fn spawn_server(&mut self) -> Result<&mut Server> {
        let tls = self.pki.write(self.folder.path(), "server", End::Server, Flaw::None)?;
        self.write_kubeconfig()?;
        let server = Server::spawn(&self.binaries, &self.topology.node, self.folder.path(), &tls, &self.server_flags)?;
        Ok(self.server.insert(server))
    }

    /// Writes a kubeconfig for the fake Kubernetes API.
    pub fn write_kubeconfig(&self) -> Result<PathBuf> {
        let kubeconfig = self.folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self.kube.kubeconfig())?;
        Ok(kubeconfig)
    }

    /// Starts the agent and waits until it is ready.
    pub fn start_agent(&mut self) -> Result<()> {
        self.spawn_agent()?.wait_ready()
    }

    /// Starts the agent and does not wait.
    pub fn spawn_agent(&mut self) -> Result<&mut Agent> {
        // The default socket of `kiam-agent health`.
        let agent = self.new_agent("agent", "run/probe.sock", &[])?;
        Ok(self.agent.insert(agent))
    }

    /// Starts another agent next to the running one, with additional flags and a probe socket of its own, and does not
    /// wait.
    pub fn spawn_successor(&self, flags: &[String]) -> Result<Agent> {
        static NEXT: AtomicU32 = AtomicU32::new(2);
        let name = format!("agent-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.new_agent(&name, &format!("{name}.sock"), flags)
    }

    /// Starts another agent next to the running one, as an update of the DaemonSet does. Waits until it is ready, and
    /// returns the previous one.
    pub fn start_successor(&mut self) -> Result<Agent> {
        let mut new = self.spawn_successor(&[])?;
        new.wait_ready()?;
        self.agent.replace(new).context("no agent ran before")
    }

    /// Upgrades the agent as an update of the DaemonSet does: starts another one next to it, and stops the old one when
    /// the new one is ready.
    pub fn upgrade(&mut self) -> Result<()> {
        let status = self.start_successor()?.stop()?;
        ensure!(status.success(), "the old agent: {}", crate::node::process::describe(status));
        Ok(())
    }

    fn new_agent(&self, name: &str, probe_socket: &str, flags: &[String]) -> Result<Agent> {
        let folder = self.folder.path();
        let tls = self.pki.write(folder, name, End::Agent, Flaw::None)?;
        let flags = [self.agent_flags.as_slice(), flags].concat();
        Agent::spawn(name, &self.binaries, &self.topology.node, folder, probe_socket, &tls, &flags)
    }

    /// Returns the running agent.
    pub fn agent(&mut self) -> Result<&mut Agent> {
        self.agent.as_mut().context("no agent was started")
    }

    /// Returns the running server.
    pub fn server(&mut self) -> Result<&mut Server> {
        self.server.as_mut().context("no server was started")
    }

    /// Runs `kiam-agent cleanup` on this node; the agent must have ended.
    pub fn clean_up(&self) -> Result<String> {
        Agent::clean_up(&self.binaries, &self.topology.node, self.folder.path())
    }

    /// Adds a pod in a namespace that permits every role: first its network, which a running agent notices, then its
    /// object.
    pub fn add_pod(&self, number: u8, role: &str) -> Result<PodNetwork> {
        let network = self.topology.add_pod(number)?;
        // A kubelet reports the pod's address long after the network was made.
        if self.agent.as_ref().is_some_and(Agent::is_alive) {
            self.wait_for_interface(&network)?;
        }
        self.announce(&network, &format!("pod-{number}"), Some(role));
        Ok(network)
    }

    /// Adds a pod, starts server and agent, and waits until the pod gets its role over IPv4.
    pub fn serving_pod(&mut self, role: &str) -> Result<PodNetwork> {
        self.serving_pods([role]).map(|[pod]| pod)
    }

    /// Adds pods with the numbers from 1 on, starts server and agent, and waits until each pod gets its role over IPv4.
    pub fn serving_pods<const PODS: usize>(&mut self, roles: [&str; PODS]) -> Result<[PodNetwork; PODS]> {
        let pods: Vec<PodNetwork> =
            (1..).zip(roles).map(|(number, role)| self.add_pod(number, role)).collect::<Result<_>>()?;
        self.start()?;
        for (pod, role) in pods.iter().zip(roles) {
            self.wait_for_role(pod, crate::clients::IMDS4, role)?;
        }
        pods.try_into().ok().context("as many pods as roles")
    }

    /// Creates a pod's object in the namespace `open`, which permits every role.
    pub fn announce(&self, network: &PodNetwork, name: &str, role: Option<&str>) {
        self.kube.put_namespace(&NamespaceObject::permitting("open", ".*"));
        self.kube.put_pod(&PodObject::running("open", name, role, network.v4, network.v6));
    }

    /// Waits until the agent has noticed a pod's new interface, which takes some milliseconds: an earlier SYN is lost
    /// and retransmitted after a second.
    pub fn wait_for_interface(&self, pod: &PodNetwork) -> Result<()> {
        const GLANCE: Duration = Duration::from_millis(100);
        eventually(&format!("{} is served", pod.interface), SOON, || {
            pod.enter(|| Connection::open(crate::clients::IMDS4, None, GLANCE).map(drop))
        })
    }

    /// Waits until a pod gets this role from the IMDS at one of its addresses.
    pub fn wait_for_role(&self, pod: &PodNetwork, imds: IpAddr, role: &str) -> Result<()> {
        eventually(&format!("{} gets {role}", pod.interface), SOON, || {
            let answer = Pod::new(pod).get(imds, crate::clients::ROLES)?;
            ensure!(answer.status == 200 && answer.text() == role, "{answer:?}");
            Ok(())
        })
    }

    /// Waits until the server has credentials for a pod's role, and returns the answer with them: AssumeRole may take
    /// longer than a pod's request may wait.
    ///
    /// # Errors
    /// There are no credentials within the time limit.
    pub fn wait_for_credentials(&self, pod: &PodNetwork, imds: IpAddr, role: &str) -> Result<Answer> {
        eventually(&format!("{} gets credentials of {role}", pod.interface), SOON, || {
            let answer = Pod::new(pod).get(imds, &format!("{}{role}", crate::clients::ROLES))?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(answer)
        })
    }

    /// Returns the environment of a client in a pod.
    #[must_use]
    pub fn environment(&self) -> Environment {
        Environment::with_sts(&Sts::endpoint())
    }

    /// Asserts that no packet of a pod is at the canary.
    pub fn expect_no_leak(&self) -> Result<()> {
        self.canary.expect_none_from_pods(&self.topology.node)
    }

    /// Returns the folder of this system's files.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Returns the folder of the agent that survives a reboot.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Returns the agent's bpffs.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.folder.path().join("bpffs")
    }

    /// Returns the logs of everything that ran, for a failure.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut logs = Vec::new();
        logs.extend(self.sts.as_ref().map(Sts::log_tail));
        logs.extend(self.server.as_ref().map(|server| server.daemon.log_tail()));
        logs.extend(self.agent.as_ref().map(|agent| agent.daemon.log_tail()));
        for family in ["-4", "-6"] {
            for what in ["rule show", "route show table 4242"] {
                let output = self.topology.node.ip(&format!("{family} {what}"));
                logs.push(format!(
                    "---- ip {family} {what} ----\n{}",
                    output.unwrap_or_else(|error| format!("{error:#}"))
                ));
            }
        }
        logs.push(format!("---- canary ----\n{:#?}", self.canary.requests()));
        logs.join("\n")
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let agent_ran = self.agent.take().is_some();
        if agent_ran && let Err(error) = self.clean_up() {
            eprintln!("{error:#}");
        }
        drop(self.server.take());
        drop(self.sts.take());
        if let Err(error) = unmount_below(self.folder.path()) {
            eprintln!("{error:#}");
        }
    }
}

/// Runs a test on a staged system. At its end, whatever the state of the node, no packet of a pod may be at the canary.
/// Panics if the test fails, after printing all logs.
pub fn scenario(test: impl FnOnce(&mut System) -> Result<()>) {
    run_on(System::stage(), test);
}

/// Like [`scenario`], on [`System::stage_datapath`]. Panics if the test fails.
pub fn datapath_scenario(test: impl FnOnce(&mut System) -> Result<()>) {
    run_on(System::stage_datapath(), test);
}

fn run_on(stage: Result<System>, test: impl FnOnce(&mut System) -> Result<()>) {
    let mut system = stage.expect("the stage");
    let outcome = catch_unwind(AssertUnwindSafe(|| test(&mut system).and_then(|()| system.expect_no_leak())));
    let failure: Box<dyn std::any::Any + Send> = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(error)) => Box::new(format!("{error:?}")),
        Err(panic) => panic,
    };
    // Before the logs and after them, because a reader may see only one end; a panic has been printed already.
    let text = failure.downcast_ref::<String>().map_or(String::new(), |text| format!("==== {text}"));
    eprintln!("{text}\n{}", system.logs());
    drop(system);
    eprintln!("{text}");
    resume_unwind(failure);
}

/// Returns the flags of `defaults` that `overrides` does not repeat, then `overrides`.
fn flags(defaults: Vec<String>, overrides: &[String]) -> Vec<String> {
    fn name(flag: &str) -> &str {
        flag.split('=').next().unwrap_or(flag)
    }
    let kept = defaults.into_iter().filter(|flag| !overrides.iter().any(|other| name(other) == name(flag)));
    kept.chain(overrides.iter().cloned()).collect()
}

/// Returns the ARN of a role in the account of STS.
#[must_use]
pub fn role_arn(role: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{role}")
}
