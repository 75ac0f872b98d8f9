//! The fields of the JSON are those that docs/agent.md documents.

use crate::operators::migration::table;
use anyhow::{Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

const HEADING: &str = "## Inspecting a node";
/// Its fields are names of repaired parts.
const OPEN_ENDED: &str = "agent.repairs";

/// Asserts that every field is in the page's table, and that every one of the table is present, unless its parent is
/// empty.
pub(super) fn expect_documented(report: &Value) -> Result<()> {
    let rows = table::rows(&table::page("docs/agent.md")?, HEADING)?;
    let listed: BTreeSet<String> =
        rows.iter().flat_map(|row| row[0].split(", ")).map(|field| field.trim_matches('`').to_owned()).collect();
    let (mut fields, mut empty) = (BTreeSet::new(), BTreeSet::new());
    walk(report, "", &mut fields, &mut empty);
    let unlisted: Vec<&String> = fields.iter().filter(|field| !listed.contains(*field)).collect();
    ensure!(unlisted.is_empty(), "not in the page: {unlisted:?}");
    let excused = |field: &String| empty.iter().any(|parent: &String| field.starts_with(parent));
    let gone: Vec<&String> = listed.iter().filter(|field| !fields.contains(*field) && !excused(field)).collect();
    ensure!(gone.is_empty(), "in the page, but not reported: {gone:?}");
    Ok(())
}

/// Collects fields by their paths; `empty` collects lists without an element and null values.
fn walk(value: &Value, path: &str, fields: &mut BTreeSet<String>, empty: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) if path != OPEN_ENDED => {
            for (name, value) in object {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(value, &path, fields, empty);
            }
            // A value that can be null has a row of its own.
            fields.extend(
                ["agent", "agent.datapath", "kernel.owner"].map(str::to_owned).into_iter().filter(|f| f == path),
            );
        }
        Value::Array(list) => {
            let path = format!("{path}[]");
            if list.is_empty() {
                empty.insert(path.clone());
            }
            list.iter().for_each(|value| walk(value, &path, fields, empty));
        }
        other => {
            fields.insert(path.to_owned());
            if other.is_null() {
                empty.insert(path.to_owned());
            }
        }
    }
}
