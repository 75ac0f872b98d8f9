//! The three variants that lead to the same server, each in a topology of its own.

use super::{figures::Case, pin_client};
use crate::yardstick::Yardstick;
use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, SockMap};
use kiam_common::abi::{LAYOUT, MAP_LISTENERS, SLOT_V4};
use kiam_tests::{
    clients::IMDS4,
    node::{
        netns::Netns,
        process,
        topology::{NODE_V4, PodNetwork},
    },
    system::System,
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    time::{Duration, Instant},
};

/// Port of the server on the node's address.
const PORT: u16 = 8099;
/// Bytes of a response body, about as many as credentials have.
const BODY: usize = 900;
/// The agent's own backlog.
const BACKLOG: i32 = 4096;

/// Path of the connections to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To the IMDS address, redirected by our programs.
    Redirect,
    /// To the node's address, with no program and no fence.
    Nothing,
    /// To the IMDS address, translated to the node's address by iptables, as kiam does it.
    Dnat,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Redirect, Self::Nothing, Self::Dnat];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Redirect => "our redirect",
            Self::Nothing => "direct",
            Self::Dnat => "iptables DNAT",
        }
    }
}

/// A topology with the server at the end of its variant.
pub(super) struct Variant {
    pub(super) kind: Kind,
    pub(super) pod: PodNetwork,
    /// Time from the agent's start until its program is attached to every interface.
    pub(super) attached: Option<Duration>,
    target: SocketAddr,
    _server: Yardstick,
    // Last, so that it is dropped after the processes that run in it.
    system: System,
}

impl Variant {
    pub(super) fn open(kind: Kind, case: Case) -> Result<Self> {
        let mut system = System::stage_datapath()?;
        let pod = system.topology.add_pod(1)?;
        add_interfaces(&system.topology.node, case.interfaces - 1)?;
        add_rules(&system.topology.node, case.rules)?;
        let node_address = SocketAddr::new(NODE_V4.into(), PORT);
        let imds = SocketAddr::new(IMDS4, 80);
        let (server, target, attached) = match kind {
            Kind::Redirect => {
                let start = Instant::now();
                system.agent_flags.push("--level=warn".to_owned());
                system.spawn_agent()?.wait_armed()?;
                let attached = start.elapsed();
                (take_the_slot(&mut system)?, imds, Some(attached))
            }
            Kind::Nothing => (Yardstick::start(&system.topology.node, node_address, BODY)?, node_address, None),
            Kind::Dnat => {
                translate(&system.topology.node, node_address)?;
                (Yardstick::start(&system.topology.node, node_address, BODY)?, imds, None)
            }
        };
        Ok(Self { kind, pod, attached, target, _server: server, system })
    }

    /// Returns the node of the topology.
    pub(super) const fn node(&self) -> &Netns {
        &self.system.topology.node
    }

    /// Opens connections one after another, each with one request, and returns the median time.
    pub(super) fn connections(&self, count: usize) -> Result<Duration> {
        self.pod.enter(|| {
            pin_client()?;
            let mut took = Vec::with_capacity(count);
            for _ in 0..count {
                let start = Instant::now();
                request(&mut TcpStream::connect(self.target)?)?;
                took.push(start.elapsed());
            }
            took.sort();
            Ok(took[count / 2])
        })
    }

    /// Sends requests one after another over one connection.
    pub(super) fn requests(&self, count: usize) -> Result<()> {
        self.pod.enter(|| {
            let mut connection = TcpStream::connect(self.target)?;
            connection.set_nodelay(true)?;
            (0..count).try_for_each(|_| request(&mut connection))
        })
    }
}

fn request(connection: &mut TcpStream) -> Result<()> {
    connection.write_all(b"GET / HTTP/1.1\r\nHost: imds\r\n\r\n")?;
    let (mut answer, mut read) = ([0; 4096], 0);
    loop {
        let more = connection.read(&mut answer[read..])?;
        ensure!(more > 0, "the connection was closed");
        read += more;
        let head = answer[..read].windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if head.is_some_and(|head| read - head - 4 == BODY) {
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
            return Ok(());
        }
    }
}

/// Puts the server into the agent's listener slot. The agent is frozen and does not repair it.
fn take_the_slot(system: &mut System) -> Result<Yardstick> {
    system.agent()?.freeze_parent()?;
    let listener = system.topology.node.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_ip_transparent_v4(true)?;
        socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    })?;
    let pin = system.bpffs().join("kiam").join(LAYOUT).join(MAP_LISTENERS);
    let map = MapData::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
    SockMap::try_from(Map::SockMap(map))?.set(SLOT_V4, &listener, 0)?;
    Yardstick::serve(listener, BODY)
}

/// Adds interfaces that could lead to pods.
fn add_interfaces(node: &Netns, count: usize) -> Result<()> {
    let lines: Vec<String> = (1..=count)
        .flat_map(|number| {
            let name = format!("cali1{number:04}");
            [format!("link add {name} type veth peer name p{number}"), format!("link set {name} up")]
        })
        .collect();
    if lines.is_empty() { Ok(()) } else { node.ip_batch(&lines) }
}

/// Adds nat rules that match nothing here, as a node with many Services has them.
fn add_rules(node: &Netns, count: usize) -> Result<()> {
    let mut rules = "*nat\n".to_owned();
    for number in 0..count {
        let (third, fourth) = (number / 250, number % 250 + 1);
        writeln!(
            rules,
            "-A PREROUTING -d 10.96.{third}.{fourth}/32 -p tcp --dport 443 -j DNAT --to-destination 10.9.9.9:443"
        )?;
    }
    rules.push_str("COMMIT\n");
    let mut restore = node.command("iptables-legacy-restore");
    let mut child = restore.arg("--noflush").stdin(Stdio::piped()).spawn().context("iptables-legacy-restore")?;
    child.stdin.take().context("a piped stdin")?.write_all(rules.as_bytes())?;
    ensure!(child.wait()?.success(), "iptables-legacy-restore refused the rules");
    Ok(())
}

/// Adds the rule that kiam installs.
fn translate(node: &Netns, to: SocketAddr) -> Result<()> {
    let mut rule = node.command("iptables-legacy");
    rule.args(["-t", "nat", "-A", "PREROUTING", "-i", "cali+", "-d", "169.254.169.254/32", "-p", "tcp"]);
    rule.args(["--dport", "80", "-j", "DNAT", "--to-destination", &to.to_string()]);
    process::run(&mut rule).map(drop)
}
