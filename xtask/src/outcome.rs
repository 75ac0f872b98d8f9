//! Results of tests, as Rust's test harness prints them.

use std::ops::AddAssign;

/// Numbers of tests, by their result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Outcome {
    /// Parses `test result: ok. 5 passed; 0 failed; 0 ignored; …`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |result: &str| {
            counts.split("; ").find_map(|count| count.strip_suffix(result)?.trim().parse::<usize>().ok())
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }

    /// Counts skipped tests as failed.
    pub(crate) fn without_skips(self) -> Self {
        Self { failed: self.failed + self.skipped, skipped: 0, ..self }
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_test_harness_prints() {
        let line = "test result: FAILED. 25 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(Outcome::parse(line), Some(Outcome { passed: 25, failed: 2, skipped: 1 }));
        assert_eq!(Outcome::parse("test tests::x ... ok"), None);
    }
}
