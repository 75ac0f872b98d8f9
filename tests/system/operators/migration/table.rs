//! Tables of the pages, as rows of cells.

use anyhow::{Context as _, Result, ensure};
use std::{fs, path::Path};

/// Returns the text of a page of this repository.
pub(crate) fn page(path: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Returns the rows of all tables between a heading and the next one of the same or a higher level, without their
/// heads. Removes the backticks of cells that are code as a whole, and reads `\|` as `|`.
pub(crate) fn rows(page: &str, heading: &str) -> Result<Vec<Vec<String>>> {
    let level = heading.chars().take_while(|&c| c == '#').count();
    let is_end = |line: &str| {
        let hashes = line.chars().take_while(|&c| c == '#').count();
        hashes > 0 && hashes <= level && line.as_bytes().get(hashes) == Some(&b' ')
    };
    let mut lines = page.lines().skip_while(|line| *line != heading);
    ensure!(lines.next().is_some(), "the page has no heading «{heading}»");
    let section: Vec<&str> = lines.take_while(|line| !is_end(line)).collect();
    let mut rows = Vec::new();
    for (index, line) in section.iter().enumerate().filter(|(_, line)| line.starts_with('|')) {
        let is_head = section.get(index + 1).is_some_and(|next| next.starts_with("|-"));
        if !is_head && !line.starts_with("|-") {
            rows.push(cells(line).with_context(|| format!("«{line}»"))?);
        }
    }
    ensure!(!rows.is_empty(), "no table under «{heading}»");
    Ok(rows)
}

fn cells(line: &str) -> Result<Vec<String>> {
    let line = line.replace("\\|", "\0");
    let inner = line
        .trim()
        .strip_prefix('|')
        .and_then(|rest| rest.strip_suffix('|'))
        .context("a row starts and ends with |")?;
    Ok(inner.split('|').map(|cell| code(cell.trim()).replace('\0', "|")).collect())
}

fn code(cell: &str) -> &str {
    let inner = cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    inner.filter(|inner| !inner.contains('`')).unwrap_or(cell)
}

#[test]
fn cells_are_read_as_they_are_shown() {
    let page = "# a\n\n| x | y |\n|---|---|\n| `1 \\| 2` | `a` and `b` |\n## b\n| x |\n|---|\n| 3 |\n# c\n";
    assert_eq!(rows(page, "# a").unwrap(), [vec!["1 | 2", "`a` and `b`"], vec!["3"]]);
    assert_eq!(rows(page, "## b").unwrap(), [["3"]]);
    assert!(rows(page, "# c").is_err());
}
