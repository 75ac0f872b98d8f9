//! Each Rust file begins with a `//!` comment.

use super::Finding;
use crate::text::files::File;

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let without = files.iter().filter(|file| file.is_rust() && !has_head(&file.text));
    without.map(|file| Finding::at(file, 0, "no head: begin the file with a `//!` line".to_owned())).collect()
}

/// A script's first line belongs to the kernel.
fn has_head(text: &str) -> bool {
    text.starts_with("//!") || text.starts_with("#!/")
}

#[cfg(test)]
mod tests {
    use super::{super::tests::findings, check};

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(findings(check, "a/src/b.rs", "use std::fs;\n").len(), 1);
        assert_eq!(findings(check, "a/src/b.rs", "//! Files.\nuse std::fs;\n").len(), 0);
        assert_eq!(findings(check, "a/src/b.rs", "#!/usr/bin/env -S cargo\n").len(), 0);
        assert_eq!(findings(check, "kiam-common/src/gen/kiam.rs", "// generated\n").len(), 0);
        assert_eq!(findings(check, "a.md", "# A\n").len(), 0);
    }
}
