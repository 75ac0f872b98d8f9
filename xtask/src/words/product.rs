//! The code that is measured: the four product crates without their tests, or all of it. Generated code is left out.

use crate::text::{files::File, rust::Line};

/// Folders of the product's sources.
const SOURCES: [&str; 4] = ["kiam-agent/src/", "kiam-common/src/", "kiam-ebpf/src/", "kiam-server/src/"];

/// Lines of the product, by file.
pub(super) struct Product<'a>(Vec<(&'a str, &'a [Line])>);

impl<'a> Product<'a> {
    pub(super) fn of(files: &'a [File]) -> Self {
        let sources = files.iter().filter(|file| file.is_rust() && is_product(&file.path));
        Self(sources.map(|file| (file.path.as_str(), before_tests(file.lines()))).collect())
    }

    /// Everything that people wrote in Rust: tests and tasks, too.
    pub(super) fn with_tests_and_tasks(files: &'a [File]) -> Self {
        let sources = files.iter().filter(|file| file.is_rust());
        Self(sources.map(|file| (file.path.as_str(), file.lines())).collect())
    }

    /// Returns each file's path and lines.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'a str, &'a [Line])> {
        self.0.iter().copied()
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &'a Line> {
        self.0.iter().flat_map(|(_, lines)| lines.iter())
    }

    /// Returns the number of words in the comments.
    pub(super) fn words(&self) -> usize {
        let comments = self.lines().filter_map(|line| line.comment.as_ref());
        comments.map(|comment| comment.text.split_whitespace().filter(|word| is_word(word)).count()).sum()
    }
}

fn is_word(text: &str) -> bool {
    text.contains(char::is_alphabetic)
}

fn is_product(path: &str) -> bool {
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    !is_test && SOURCES.iter().any(|folder| path.starts_with(folder))
}

/// Returns the lines above the module of unit tests, which is at the end of a file.
fn before_tests(lines: &[Line]) -> &[Line] {
    let is_start = |pair: &[Line]| match pair {
        [attribute, module] => attribute.code == "#[cfg(test)]" && module.code.starts_with("mod tests {"),
        _ => false,
    };
    let end = lines.windows(2).position(is_start).unwrap_or(lines.len());
    lines.get(..end).unwrap_or(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_other_crates_are_left_out() {
        let unit = "//! Two words.\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    // Not these.\n}\n";
        let paths = ["kiam-agent/src/a.rs", "kiam-agent/src/tests.rs", "kiam-agent/src/tests/b.rs", "xtask/src/a.rs"];
        let files: Vec<File> = paths.iter().map(|path| File::new(*path, unit)).collect();
        let product = Product::of(&files);
        assert_eq!(product.files().map(|(path, lines)| (path, lines.len())).collect::<Vec<_>>(), [(paths[0], 3)]);
        assert_eq!(product.words(), 2);
        assert_eq!(Product::with_tests_and_tasks(&files).words(), 4 * 4);
    }
}
