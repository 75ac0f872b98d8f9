//! The binary `kiam-server`; everything is in the library.

fn main() -> std::process::ExitCode {
    kiam_server::main()
}
