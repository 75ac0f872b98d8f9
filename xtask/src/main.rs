//! `cargo xtask …`: every task of the repository.
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
#[command(name = "cargo xtask", about = "Every task of this repository")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Generate the gRPC code from kiam-common/proto, in pure Rust.
    Codegen(codegen::Args),
    /// Run the quick half of `ci`: formatting, generated code, tidy, clippy, documentation, dependencies, unit tests.
    Check,
    /// Run everything that a change must pass: `check`, then all tests, the demo, other kernels and the mutations.
    Ci,
    /// Check what a program can check of CONTRIBUTING.md: imports, heads, words, documents, names of tests.
    Tidy(tidy::Args),
    /// Measure the language of the comments, and the sizes of the code.
    Words(words::Args),
    /// Run every test that this machine can run, after installing what it lacks.
    Test(test::Args),
    /// Run the tests of the datapath on other kernels than this machine's, in QEMU.
    Vm(vm::Args),
    /// Show it all on this machine: a node with three pods, and what each of them gets.
    Demo(demo::Args),
    /// Measure what a request costs, beside a bare hyper; or what the datapath costs.
    Bench(bench::Args),
    /// Build the eBPF programs that the agent embeds.
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
