//! Values that change each time: ids, tags, addresses, sizes, times.

use anyhow::Result;
use regex::Regex;

/// Patterns and their replacements, in this order.
const RULES: [(&str, &str); 7] = [
    // Present while `kernel.bpf_stats_enabled` is on, which depends on the machine.
    (r" run_time_ns \d+ run_cnt \d+", ""),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}\b", "TIME"),
    (r"\btag [0-9a-f]{16}\b", "tag TAG"),
    // A changed program uses other maps; the page only shows that their ids are printed.
    (r"\bmap_ids [\d,]+", "map_ids N"),
    (r"\b(link_\w+_)\d+", "${1}N"),
    // Neither within a name nor within a version: another version of `bpftool` prints other fields.
    (r"(^|[^.\w])\d+(B?)\b", "${1}N${2}"),
    // Columns are as wide as their numbers.
    (r"[ \t]+", " "),
];

/// Returns a text with these values replaced.
pub(super) fn without(text: &str) -> Result<String> {
    RULES.into_iter().try_fold(text.to_owned(), |text, (pattern, replacement)| {
        Ok(Regex::new(pattern)?.replace_all(&text, replacement).into_owned())
    })
}

#[test]
fn ids_and_times_are_masked_and_names_kept() {
    let shown = "bpftool v7.1.0\n12: sched_cls  name kiam_connect4  tag 15325b8e24e6c19e  gpl \
                 run_time_ns 162163 run_cnt 24\n\tloaded_at \
                 2026-11-21T19:31:51+0000  uid 0\n\txlated 2592B  map_ids 1,22,3\n/v1/link_tc_3 [0,7]";
    let left = "bpftool v7.1.0\nN: sched_cls name kiam_connect4 tag TAG gpl\n loaded_at TIME uid N\n xlated NB map_ids \
                N\n/v1/link_tc_N [N,N]";
    assert_eq!(without(shown).unwrap(), left);
}
