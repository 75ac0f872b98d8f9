//! Results of the scenes: rows with the expected and the actual outcome.

use serde_json::{Value, json};

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Subject of the check.
    pub(super) who: String,
    /// Action.
    pub(super) what: String,
    /// Expected outcome.
    pub(super) expected: String,
    /// Actual outcome.
    pub(super) got: String,
    /// True if the outcome is as expected.
    pub(super) holds: bool,
}

impl Row {
    /// Holds if the actual outcome equals the expected one.
    pub(super) fn exactly(who: &str, what: &str, expected: &str, got: String) -> Self {
        let holds = got == expected;
        Self { who: who.to_owned(), what: what.to_owned(), expected: expected.to_owned(), got, holds }
    }

    /// Holds if the actual outcome begins with the expected one; `expected` is displayed with an ellipsis.
    pub(super) fn beginning(who: &str, what: &str, expected: &str, got: String) -> Self {
        let holds = got.starts_with(expected);
        Self { who: who.to_owned(), what: what.to_owned(), expected: format!("{expected}…"), got, holds }
    }

    /// Holds if the caller passes `true`.
    pub(super) fn judged(who: &str, what: &str, expected: &str, got: String, holds: bool) -> Self {
        Self { who: who.to_owned(), what: what.to_owned(), expected: expected.to_owned(), got, holds }
    }
}

/// A part of the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scene {
    /// Headline.
    pub(super) title: &'static str,
    /// Explanation of the scene for a reader without prior knowledge; one line per paragraph.
    pub(super) text: String,
    /// Column headings of the rows' `who` and `what`.
    pub(super) headings: [&'static str; 2],
    /// Checks.
    pub(super) rows: Vec<Row>,
}

impl Scene {
    /// Returns whether every row holds.
    pub(super) fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.holds)
    }

    fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|Row { who, what, expected, got, holds }| {
            json!({"who": who, "what": what, "expected": expected, "got": got, "holds": holds})
        });
        json!({"title": self.title, "holds": self.holds(), "rows": rows.collect::<Vec<_>>()})
    }
}

/// Returns the number of rows, and the number of rows that hold.
pub(super) fn tally(scenes: &[Scene]) -> (usize, usize) {
    let rows: Vec<&Row> = scenes.iter().flat_map(|scene| &scene.rows).collect();
    (rows.len(), rows.iter().filter(|row| row.holds).count())
}

/// Returns the whole result as JSON.
pub(super) fn to_json(scenes: &[Scene]) -> Value {
    let (rows, holding) = tally(scenes);
    json!({
        "holds": rows == holding,
        "rows": rows,
        "scenes": scenes.iter().map(Scene::to_json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_that_does_not_hold_is_enough() {
        let row = |got: &str| Row::exactly("pod", "asks", "nothing", got.to_owned());
        let scene = |rows| Scene { title: "", text: String::new(), headings: ["", ""], rows };
        let scenes = [scene(vec![row("nothing")]), scene(vec![row("nothing"), row("node role")])];
        assert_eq!(tally(&scenes), (3, 2));
        assert_eq!(to_json(&scenes)["holds"], false);
        assert_eq!(to_json(&scenes[..1])["holds"], true);
    }

    #[test]
    fn a_beginning_is_not_found_in_the_middle() {
        assert!(Row::beginning("", "", "assumed-role/a/", "assumed-role/a/kiam".to_owned()).holds);
        assert!(!Row::beginning("", "", "assumed-role/a/", "no assumed-role/a/kiam".to_owned()).holds);
    }
}
