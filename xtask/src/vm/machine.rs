//! QEMU: one guest, from power-on to power-off.

use crate::{progress, setup::QEMU};
use anyhow::{Context as _, bail};
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// Memory of a guest, in MiB.
const MEMORY_MIB: u32 = 2048;
/// A disk with a driver that is built into the kernels: no initramfs is needed.
const DISK: [&str; 2] = ["-device", "nvme,drive=disk,serial=disk"];
/// The kernel's command line: its console, its init, and a reboot, which ends QEMU, after a panic. The emulated
/// time-stamp counter is right, but the kernel doubts it and would use a clock that costs a hundred times as much.
/// Without randomised addresses, code is translated once. The mitigations that cost time are off by their names: with
/// `mitigations=off`, kernels from 6.7 on would also verify programs as for a process with CAP_PERFMON, which ours lacks.
const COMMAND_LINE: &str = "console=ttyS0 root=/dev/nvme0n1 rw init=/init panic=-1 quiet nopti nospectre_v2 \
    spec_store_bypass_disable=off retbleed=off tsc=reliable clocksource=tsc norandmaps nokaslr";
/// Number of lines shown of the kernel's console when a guest ends early.
const TAIL: usize = 60;

/// A running guest. It ends when this value is dropped, or when this process ends for any reason.
pub(super) struct Machine {
    qemu: Child,
    lines: Receiver<String>,
    deadline: Instant,
}

impl Machine {
    /// Starts the guest. The output of its kernel goes to the file `console`.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub(super) fn start(kernel: &Path, disk: &Path, console: &Path, time_limit: Duration) -> anyhow::Result<Self> {
        drop(File::create(console).with_context(|| format!("making {}", console.display()))?);
        // The host's kernel kills QEMU when this process ends, even if that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", QEMU, "-nodefaults", "-no-user-config", "-no-reboot"]);
        command.args(["-display", "none", "-machine", "q35", "-m", &MEMORY_MIB.to_string()]);
        command.args(["-smp", &processors().to_string()]).args(acceleration());
        command.arg("-kernel").arg(kernel).args(["-append", COMMAND_LINE]);
        // A snapshot: what the guest writes to its disk is discarded.
        command.arg("-drive").arg(format!("file={},format=raw,if=none,id=disk,snapshot=on", disk.display())).args(DISK);
        command.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
        let mut qemu =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting QEMU by setpriv")?;
        let lines = lines_of(qemu.stdout.take().context("no output to read")?);
        Ok(Self { qemu, lines, deadline: Instant::now() + time_limit })
    }

    /// Returns the next line of the second serial port; `None` if the guest is off.
    ///
    /// # Errors
    /// The guest has exceeded its time limit.
    pub(super) fn line(&self) -> anyhow::Result<Option<String>> {
        match self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the guest has not ended in time: raise --minutes, or see its console")
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.qemu.kill());
        if let Err(error) = self.qemu.wait() {
            progress::say(&format!("waiting for QEMU: {error}"));
        }
    }
}

/// Returns the end of the kernel's console.
pub(super) fn tail(console: &Path) -> String {
    let text = fs::read(console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(TAIL)).map(|line| format!("  {line}\n")).collect()
}

fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            // A test may print bytes that are not UTF-8.
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    lines
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the options for hardware virtualisation, or for emulation without it. A processor without the flag may come
/// with a `/dev/kvm` all the same, which then emulates, too, and slower.
fn acceleration() -> [&'static str; 4] {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let is_virtual = processor.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    if is_virtual && File::options().read(true).write(true).open("/dev/kvm").is_ok() {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=multi", "-cpu", "max"]
    }
}
