//! `cargo xtask …`: the tasks of this repository.
mod apt;
mod bench;
mod ci;
mod codegen;
mod demo;
mod ebpf;
mod leftovers;
mod outcome;
mod progress;
mod release;
mod root;
mod setup;
mod test;
mod text;
mod tidy;
mod vm;
mod words;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tasks of this repository")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Generate the gRPC code from kiam-common/proto; needs no protoc.
    Codegen(codegen::Args),
    /// Run the quick half of `ci`, without root: formatting, generated code, tidy, clippy, documentation, dependencies,
    /// unit tests.
    Check,
    /// Run everything that a change must pass: `check`, then all tests, the demo, other kernels and the mutations.
    Ci,
    /// Check style: import directions, file heads, wording, documents, links, names of tests.
    Tidy(tidy::Args),
    /// Measure the wording of the comments and the size of the code.
    Words(words::Args),
    /// Run every test that this machine can run; installs missing tools.
    Test(test::Args),
    /// Run the system tests on other kernels, in QEMU.
    Vm(vm::Args),
    /// Run the demo: a node with three pods on this machine, and the response that each pod gets.
    Demo(demo::Args),
    /// Measure the cost of a request, compared with a bare hyper server; or the cost of the datapath.
    Bench(bench::Args),
    /// Build the eBPF object that the agent embeds.
    BuildEbpf(ebpf::Args),
}

fn main() -> ExitCode {
    match execute(Args::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Codegen(args) => codegen::run(&args),
        Task::Check => ci::check(),
        Task::Ci => ci::run(),
        Task::Tidy(args) => tidy::run(&args),
        Task::Words(args) => words::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::BuildEbpf(args) => ebpf::run(&args),
    }
}
