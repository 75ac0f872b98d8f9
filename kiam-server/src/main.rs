//! `kiam-server`: see the library for what it does.

fn main() -> std::process::ExitCode {
    kiam_server::main()
}
