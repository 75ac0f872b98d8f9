//! Habits of language that are counted, with their frequency in projects that read well.

use super::product::Product;
use crate::text::{comments, pattern, rust};
use serde::Serialize;

/// A habit, counted.
#[derive(Debug, Serialize)]
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) count: usize,
    pub(super) value: f64,
    /// Highest value among ztunnel, linkerd2-proxy, linkerd's policy-controller, aya and firecracker.
    pub(super) highest_elsewhere: f64,
    pub(super) goal: f64,
}

/// Units of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    PerThousandWords,
    PercentOfDocComments,
}

/// Words, with the highest number of occurrences per thousand words of comment elsewhere.
const WORDS: [(&str, &str, f64); 5] = [
    ("who, whoever, nobody, somebody", r"(?i)\b(who|whoever|nobody|somebody)\b", 0.10),
    ("tell, tells, told", r"(?i)\b(tells?|told)\b", 0.12),
    ("whose", r"(?i)\bwhose\b", 0.23),
    ("stand, stands", r"(?i)\bstands?\b", 0.02),
    ("none", r"(?i)\bnone\b", 0.10),
];
/// Openings of doc comments, with the highest percentage elsewhere.
const OPENINGS: (&str, &str, f64) =
    ("opens with What, How, Whether, Of, By, As", r"^(What|How|Whether|Of|By|As)\b", 1.0);
/// The goal, as a multiple of the highest value elsewhere.
const GOAL: f64 = 2.0;

impl Unit {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PerThousandWords => "per 1,000 words",
            Self::PercentOfDocComments => "of doc comments",
        }
    }

    pub(super) fn format(self, value: f64) -> String {
        match self {
            Self::PerThousandWords => format!("{value:.2}"),
            Self::PercentOfDocComments => format!("{value:.1} %"),
        }
    }
}

/// Returns the measures, and the places of all that was counted.
pub(super) fn measure(product: &Product<'_>) -> (Vec<Measure>, Vec<String>) {
    let mut places = Vec::new();
    let words = product.words();
    let mut measures: Vec<Measure> = WORDS
        .iter()
        .map(|&(name, word, highest)| {
            let count = count_words(product, word, &mut places);
            measured(name, Unit::PerThousandWords, count, 1000.0 * ratio(count, words), highest)
        })
        .collect();
    let (name, opening, highest) = OPENINGS;
    let (count, all) = count_openings(product, opening, &mut places);
    measures.push(measured(name, Unit::PercentOfDocComments, count, 100.0 * ratio(count, all), highest));
    (measures, places)
}

fn measured(name: &'static str, unit: Unit, count: usize, value: f64, highest_elsewhere: f64) -> Measure {
    Measure { name, unit, count, value, highest_elsewhere, goal: GOAL * highest_elsewhere }
}

#[expect(clippy::cast_precision_loss, reason = "counts of words are small")]
fn ratio(count: usize, of: usize) -> f64 {
    count as f64 / of.max(1) as f64
}

fn count_words(product: &Product<'_>, word: &str, places: &mut Vec<String>) -> usize {
    let word = pattern(word);
    let mut count = 0;
    for (path, lines) in product.files() {
        for (index, prose) in comments::prose_of(lines).iter().enumerate() {
            let found = word.find_iter(prose).count();
            places.extend((found > 0).then(|| format!("{path}:{}: {}", index + 1, prose.trim())));
            count += found;
        }
    }
    count
}

/// Returns the number of doc comments with such an opening, and that of all doc comments.
fn count_openings(product: &Product<'_>, opening: &str, places: &mut Vec<String>) -> (usize, usize) {
    let opening = pattern(opening);
    let (mut count, mut all) = (0, 0);
    for (path, lines) in product.files() {
        for (index, text) in rust::first_lines_of_docs(lines) {
            let is_found = opening.is_match(&text);
            places.extend(is_found.then(|| format!("{path}:{}: {text}", index + 1)));
            (count, all) = (count + usize::from(is_found), all + 1);
        }
    }
    (count, all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::files::File;

    fn counts(text: &str) -> Vec<usize> {
        let files = [File::new("kiam-agent/src/a.rs", text)];
        measure(&Product::of(&files)).0.iter().map(|measure| measure.count).collect()
    }

    #[test]
    fn habits_are_counted_in_comments_alone() {
        let bad = "//! Who tells nobody?\n/// Whose it stands for: none.\nfn tell() {} // told\n/// What.\nfn b() {}\n";
        assert_eq!(counts(bad), [2, 2, 1, 1, 1, 1]);
        let good = "//! Words.\n/// Returns `None`.\nfn whose() { f(\"nobody\") }\n";
        assert_eq!(counts(good), [0; 6]);
    }

    #[test]
    fn frequencies_are_of_words_and_of_doc_comments() {
        let files =
            [File::new("kiam-agent/src/a.rs", "//! One whose two three.\n/// How.\nfn a() {}\n/// By.\n/// X.\n")];
        let (measures, places) = measure(&Product::of(&files));
        assert!(measures.iter().any(|measure| measure.name == "whose" && measure.value == 1000.0 / 7.0));
        assert!(measures.iter().any(|measure| measure.name == OPENINGS.0 && measure.value == 100.0));
        assert_eq!(places.len(), 3);
    }
}
