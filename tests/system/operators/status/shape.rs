//! The fields of the JSON are those that docs/agent.md promises.

use crate::operators::migration::table;
use anyhow::{Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

const HEADING: &str = "## Inspecting a node";
/// Its fields are names of what was repaired.
const OPEN_ENDED: &str = "agent.repairs";

/// Every field is in the page's table; and every one of the table is there, unless what it is a part of is empty.
pub(super) fn expect_documented(told: &Value) -> Result<()> {
    let rows = table::rows(&table::page("docs/agent.md")?, HEADING)?;
    let listed: BTreeSet<String> =
        rows.iter().flat_map(|row| row[0].split(", ")).map(|field| field.trim_matches('`').to_owned()).collect();
    let (mut fields, mut empty) = (BTreeSet::new(), BTreeSet::new());
    walk(told, "", &mut fields, &mut empty);
    let unlisted: Vec<&String> = fields.iter().filter(|field| !listed.contains(*field)).collect();
    ensure!(unlisted.is_empty(), "not in the page: {unlisted:?}");
    let excused = |field: &String| empty.iter().any(|parent: &String| field.starts_with(parent));
    let gone: Vec<&String> = listed.iter().filter(|field| !fields.contains(*field) && !excused(field)).collect();
    ensure!(gone.is_empty(), "in the page, and not told: {gone:?}");
    Ok(())
}

/// Fields by their paths. `empty`: those of lists without an element and of what is null.
fn walk(value: &Value, path: &str, fields: &mut BTreeSet<String>, empty: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) if path != OPEN_ENDED => {
            for (name, value) in object {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(value, &path, fields, empty);
            }
            // What can be null has a row of its own.
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
