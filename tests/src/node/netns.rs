//! Network namespaces that are removed when dropped, and actions inside them.
//!
//! A thread that enters a namespace is made for that and ends with it: otherwise it would do its next work in the wrong
//! network.

use crate::node::{leftovers::NETNS_FOLDER, owner, process};
use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::{
    env,
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// Environment variable that, with the value `first`, makes the kernel's first network namespace the node of each test.
/// Set in guests.
const NODE: &str = "KIAM_TESTS_NODE";

/// A named network namespace. Its interfaces are removed with it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
    /// Control group of the actions in this namespace.
    cgroup: Option<PathBuf>,
    /// True for the kernel's first one, which outlives its name.
    is_first: bool,
}

impl Netns {
    /// Makes one with `lo` up and nothing else. Needs root.
    pub fn create(role: &str) -> Result<Self> {
        let name = owner::unique_name(role)?;
        process::run(Command::new("ip").args(["netns", "add", &name]))?;
        let netns = Self { path: Path::new(NETNS_FOLDER).join(&name), name, cgroup: None, is_first: false };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Makes one for a node, or takes the kernel's first one if the environment requires it (then only one test at a
    /// time). Fails if the first one has interfaces that no test made.
    pub fn node() -> Result<Self> {
        if env::var_os(NODE).is_none_or(|node| node != "first") {
            return Self::create("node");
        }
        let name = owner::unique_name("node")?;
        process::run(Command::new("ip").args(["netns", "attach", &name, "1"]))?;
        let mut netns = Self { path: Path::new(NETNS_FOLDER).join(&name), name, cgroup: None, is_first: false };
        let interfaces = netns.interfaces()?;
        ensure!(interfaces.is_empty(), "{NODE}: {interfaces:?} in the first network namespace were not made by a test");
        // From here on everything in it is removed with the test.
        netns.is_first = true;
        Ok(netns)
    }

    /// Returns the names of all interfaces but `lo`.
    fn interfaces(&self) -> Result<Vec<String>> {
        let links: Vec<Value> = serde_json::from_str(&self.ip("-json link show")?)?;
        let names = links.iter().filter_map(|link| link["ifname"].as_str());
        Ok(names.filter(|&name| name != "lo").map(str::to_owned).collect())
    }

    /// Removes what the end of a namespace would remove. Ignores what is gone already, with its peer or its interface.
    fn clear(&self) -> Result<()> {
        for interface in self.interfaces()? {
            drop(self.ip(&format!("link del {interface}")));
        }
        self.ip("addr flush dev lo scope global")?;
        for family in ["-4", "-6"] {
            for flush in ["route flush table main", "route flush type blackhole", "route flush table 4242"] {
                drop(self.ip(&format!("{family} {flush}")));
            }
            self.ip(&format!("{family} rule flush"))?;
            // A flush keeps this rule, but a test may have moved it.
            drop(self.ip(&format!("{family} rule add priority 0 lookup local")));
            self.ip(&format!("{family} rule add priority 32766 lookup main"))?;
            self.ip(&format!("{family} rule add priority 32767 lookup default"))?;
        }
        Ok(())
    }

    /// Returns the name for `ip -n`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the file for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes everything that enters this namespace enter a control group as well, which must be one of
    /// [`crate::node::cgroups::Kubepods::for_clients`].
    pub fn live_in(&mut self, cgroup: &Path) {
        self.cgroup = Some(cgroup.to_owned());
    }

    /// Runs `ip -n NAME …`, with the arguments split at blanks; returns its output.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        process::run(Command::new("ip").args(["-n", &self.name]).args(arguments.split(' ')))
    }

    /// Runs many `ip` commands in one process, one per line.
    pub fn ip_batch(&self, lines: &[String]) -> Result<()> {
        self.ip_batch_after(|| (), lines)
    }

    /// Like [`Netns::ip_batch`], but calls `at_last` when `ip` is already running and waits for its first line, so that
    /// the effect of the lines follows at once.
    pub fn ip_batch_after(&self, at_last: impl FnOnce(), lines: &[String]) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("a piped stdin")?;
        stdin.write_all(b"link show dev lo\n")?;
        child.stdout.as_mut().context("a piped stdout")?.read_exact(&mut [0])?;
        at_last();
        let mut batch = lines.join("\n");
        batch.push('\n');
        stdin.write_all(batch.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}\nof\n{batch}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Returns a command that will run in this namespace. Not `ip netns exec`, which hides the mounts of bpffs and
    /// cgroups.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match &self.cgroup {
            None => Command::new("nsenter"),
            Some(cgroup) => {
                let mut command = Command::new("sh");
                // The shell moves itself and becomes the program.
                command.args(["-c", r#"echo 0 > "$0" && exec nsenter "$@""#]).arg(cgroup.join("cgroup.procs"));
                command
            }
        };
        command.arg(format!("--net={}", self.path.display())).arg(program);
        command
    }

    /// Runs a function in this namespace, on a thread of its own, and waits for it. Sockets that it makes stay in the
    /// namespace wherever they are used.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        Self::enter_path(&self.path, || {
            if let Some(cgroup) = &self.cgroup {
                join(cgroup)?;
            }
            work()
        })
    }

    /// Like [`Netns::enter`], for a namespace without a [`Netns`] at hand.
    pub(crate) fn enter_path<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter_this_thread(path)?;
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a thread in this namespace. A failure to enter the namespace is the thread's result.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let (path, cgroup) = (self.path.clone(), self.cgroup.clone());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            enter_this_thread(&path)?;
            cgroup.iter().try_for_each(|cgroup| join(cgroup))?;
            work()
        })?;
        Ok(thread)
    }

    /// Returns whether IPv6 is disabled here.
    pub fn has_no_ipv6(&self) -> Result<bool> {
        self.enter(|| {
            Ok(fs::read("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|value| value.starts_with(b"1")))
        })
    }

    /// Sets a sysctl of this namespace, such as `net.ipv4.ip_forward`. The name of an interface in it must not contain
    /// a dot.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        // `/proc/sys/net` shows the namespace of the reading thread.
        self.enter(|| fs::write(&path, value).with_context(|| format!("set {key} to {value}")))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.is_first
            && let Err(error) = self.clear()
        {
            eprintln!("{error:#}");
        }
        if let Err(error) = process::run(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("{error:#}");
        }
    }
}

/// Moves the calling thread into a control group.
fn join(cgroup: &Path) -> Result<()> {
    let threads = cgroup.join("cgroup.threads");
    fs::write(&threads, nix::unistd::gettid().to_string()).with_context(|| format!("write {}", threads.display()))
}

/// Moves the calling thread into a namespace.
fn enter_this_thread(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", path.display()))
}
