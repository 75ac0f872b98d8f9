//! `kiam-demo`: what `cargo xtask demo` runs as root.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiam_tests::demo::main()
}
