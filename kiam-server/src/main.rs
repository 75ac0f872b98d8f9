//! `kiam-server`: see the library.
fn main() {}
