//! The metrics that the code registers are those that the pages list, and every metric of kiam is accounted for.

use super::table;
use anyhow::{Context as _, Result, ensure};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Pages that list metrics, and the sources that register them.
const PAGES: [(&str, &[&str]); 2] = [
    ("docs/agent.md", &["kiam-agent/src", "kiam-common/src/rpc_metrics.rs", "kiam-common/src/tls/metrics.rs"]),
    ("docs/server.md", &["kiam-server/src", "kiam-common/src/rpc_metrics.rs", "kiam-common/src/tls/metrics.rs"]),
];
const HEADING: &str = "## Metrics";
/// Text before the name of a metric in its registration.
const REGISTRATIONS: [&str; 2] = [".register(", "encode_descriptor("];
/// Suffix of a counter's name in the exposition format.
const COUNTER: &str = "_total";

/// Every metric is in the documents, and every documented metric exists.
#[test]
fn metrics_match_the_documents() {
    let mut problems = Vec::new();
    for (page, sources) in PAGES {
        let registered = registered(sources).unwrap();
        let listed = listed(page).unwrap();
        let matches = |listed: &str, registered: &str| {
            let bare = listed.strip_suffix(COUNTER).unwrap_or(listed);
            bare == registered || bare.ends_with(&format!("_{registered}"))
        };
        for name in &registered {
            if !listed.iter().any(|listed| matches(listed, name)) {
                problems.push(format!("{page}: no row for {name}"));
            }
        }
        for name in &listed {
            if !registered.iter().any(|registered| matches(name, registered)) {
                problems.push(format!("{page}: no such metric: {name}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_kiam_metric_is_accounted_for() {
    let ours: BTreeSet<String> = PAGES.iter().flat_map(|(page, _)| listed(page).unwrap()).collect();
    let rows = table::rows(&table::page("docs/migration.md").unwrap(), HEADING).unwrap();
    let kiams: BTreeSet<&str> =
        include_str!("kiam-metrics.txt").lines().filter(|line| !line.starts_with('#')).collect();
    let in_rows: BTreeSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(in_rows, kiams);
    for row in &rows {
        assert_eq!(row[1].starts_with("same"), ours.contains(&row[0]), "{row:?}");
        assert!(row[1].starts_with("same") || row[1].starts_with("gone: "), "{row:?}");
    }
}

/// Returns the metrics of a page.
fn listed(page: &str) -> Result<BTreeSet<String>> {
    let rows = table::rows(&table::page(page)?, HEADING)?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next()).collect())
}

/// Returns the registered names of metrics, without the prefixes of registries.
fn registered(sources: &[&str]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for source in sources {
        for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(source))? {
            let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            for registration in REGISTRATIONS {
                names.extend(text.split(registration).skip(1).filter_map(first_string));
            }
        }
    }
    ensure!(names.len() > 5, "{sources:?} register only {names:?}");
    Ok(names)
}

/// Returns the string literal at the start, if there is one.
fn first_string(text: &str) -> Option<String> {
    let (name, _) = text.trim_start().strip_prefix('"')?.split_once('"')?;
    Some(name.to_owned())
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("read {}", path.display()))? {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(files(&path)?);
        }
    }
    Ok(found)
}
