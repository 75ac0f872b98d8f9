//! What the reader sees: the drawing, the tables, the commands. At most 100 columns; colours only on a terminal.

use super::report::{self, Row, Scene};
use anyhow::Result;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};
use std::io::{self, IsTerminal as _, Write as _};

/// Widest line, in columns.
const WIDTH: u16 = 100;
/// The columns of every table, with their padding; the six lines between them make it [`WIDTH`].
const COLUMNS: [u16; 5] = [14, 29, 20, 28, 3];

/// The stage.
const DRAWING: &str = r#"
  pods of the namespace payments,             a node                         «EC2» and «AWS»
  which permits payments-*          ╭─────────────────────────────╮      ╭───────────────────────╮
                                    │                             │      │ 169.254.169.254: the  │
  permitted   payments-reader ─────▶│ kiam_tc_ingress             │╌ ╳ ╌▶│ metadata service, has │
  forbidden   cluster-admin   ─────▶│ (eBPF) ─────▶ kiam-agent    │      │ the node's own role   │
  no-role     (none)          ─────▶│                   │ gRPC    │      ├───────────────────────┤
                                    │ Kubernetes        ▼         │      │ STS: has credentials  │
                                    │ API ────────▶ kiam-server ──┼─────▶│ for the pods' roles   │
                                    ╰─────────────────────────────╯      ╰───────────────────────╯
"#;

/// What is about to be shown.
pub(super) fn opening() -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}", bold("kiam: an AWS role for each pod, and never the node's"))?;
    out.write_all(DRAWING.as_bytes())?;
    let about = "All of it runs in network namespaces of its own on this machine. kiam-agent, its eBPF program, \
                 kiam-server and the aws CLI are the real ones; STS is moto; the metadata service and the Kubernetes \
                 API are stand-ins.";
    writeln!(out, "\n{}\n", indented(about))?;
    Ok(())
}

/// A scene, when it is over.
pub(super) fn scene(scene: &Scene) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}\n{}\n{}", bold(scene.title), indented(&scene.text), table(scene))?;
    Ok(())
}

fn table(scene: &Scene) -> Table {
    let [who, what] = scene.headings;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH).set_header([who, what, "expected", "gets", ""]);
    table.set_constraints(COLUMNS.map(|width| ColumnConstraint::Absolute(Width::Fixed(width))));
    for Row { who, what, expected, got, holds } in &scene.rows {
        let (mark, colour) = if *holds { ("✓", Color::Green) } else { ("✗", Color::Red) };
        let got = Cell::new(got);
        let got = if *holds { got } else { got.fg(Color::Red).add_attribute(Attribute::Bold) };
        table.add_row([Cell::new(who), Cell::new(what), Cell::new(expected), got, Cell::new(mark).fg(colour)]);
    }
    table
}

/// What came of it all.
pub(super) fn closing(scenes: &[Scene]) -> Result<()> {
    let (rows, holding) = report::tally(scenes);
    let mut out = io::stdout().lock();
    if rows == holding {
        writeln!(out, "\n{} all {rows} of {rows} came as expected", coloured("✓", GREEN))?;
    } else {
        writeln!(out, "\n{} {} of {rows} did not come as expected", coloured("✗", RED), rows - holding)?;
    }
    Ok(())
}

/// The result, for machines.
pub(super) fn json(result: &serde_json::Value) -> Result<()> {
    writeln!(io::stdout().lock(), "{result:#}")?;
    Ok(())
}

/// What to try now.
pub(super) fn guide(guide: &[super::play::Part]) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}", bold("It stays up: try it yourself, as root in another terminal"))?;
    for part in guide {
        writeln!(out, "\n  {}", part.title)?;
        for command in &part.commands {
            writeln!(out, "    {}", coloured(command, CYAN))?;
        }
    }
    writeln!(out, "\nCtrl-C here, or q and Enter, ends the demo and removes everything.\n")?;
    Ok(())
}

/// Something that has just happened.
pub(super) fn note(text: &str) {
    // A terminal that is gone is one of the ways to end.
    drop(writeln!(io::stderr(), "{text}"));
}

/// What everything that ran has said, after a failure.
pub(super) fn explain(logs: &str) {
    drop(writeln!(io::stderr(), "{logs}\n"));
}

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const CYAN: &str = "36";

fn bold(text: &str) -> String {
    coloured(text, BOLD)
}

/// With an SGR code (ECMA-48) around it, on a terminal.
fn coloured(text: &str, code: &str) -> String {
    if io::stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Each line wrapped at blanks and indented by two.
fn indented(text: &str) -> String {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::from(" ");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > usize::from(WIDTH) {
                lines.push(std::mem::replace(&mut line, String::from(" ")));
            }
            line.push(' ');
            line.push_str(word);
        }
        lines.push(line);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_wider_than_a_hundred_columns() {
        let row = Row::exactly("anybody else", &"a b".repeat(60), &"x".repeat(200), "y".repeat(200));
        let scene = Scene { title: "", text: String::new(), headings: ["a", "b"], rows: vec![row] };
        let shown = format!("{DRAWING}\n{}\n{}", table(&scene), indented(&"word ".repeat(80)));
        for line in shown.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
