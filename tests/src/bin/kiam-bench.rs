//! `kiam-bench`: what `cargo xtask bench` runs as root.

fn main() -> anyhow::Result<()> {
    kiam_tests::bench::run()
}
