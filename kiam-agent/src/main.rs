//! The `kiam-agent` binary. The code is in the library.

fn main() -> std::process::ExitCode {
    kiam_agent::main()
}
