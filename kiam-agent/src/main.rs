//! `kiam-agent`: see the library for what it does.

fn main() -> std::process::ExitCode {
    kiam_agent::main()
}
