//! Output for the reader: the drawing, the tables, the commands. At most 100 columns; colours only on a terminal.

use super::report::{self, Row, Scene};
use anyhow::Result;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};
use std::io::{self, IsTerminal as _, Write as _};

/// Widest line, in columns.
const WIDTH: u16 = 100;
/// Widths of the columns of every table, with their padding; with the six lines between them they add up to [`WIDTH`].
const COLUMNS: [u16; 5] = [14, 29, 20, 28, 3];

/// Picture of the stage.
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

/// Shows the picture and an introduction.
pub(super) fn opening() -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}", bold("kiam: an AWS role for each pod, and never the node's"))?;
    out.write_all(DRAWING.as_bytes())?;
    let about = "Everything runs in separate network namespaces on this machine. kiam-agent, its eBPF programs, \
                 kiam-server and the aws CLI are real; STS is moto; the metadata service and the Kubernetes \
                 API are fakes.";
    writeln!(out, "\n{}\n", indented(about))?;
    Ok(())
}

/// Shows a finished scene.
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

/// Shows the overall result.
pub(super) fn closing(scenes: &[Scene]) -> Result<()> {
    let (rows, holding) = report::tally(scenes);
    let mut out = io::stdout().lock();
    if rows == holding {
        writeln!(out, "\n{} all {rows} results as expected", coloured("✓", GREEN))?;
    } else {
        writeln!(out, "\n{} {} of {rows} results not as expected", coloured("✗", RED), rows - holding)?;
    }
    Ok(())
}

/// Prints the result as JSON.
pub(super) fn json(result: &serde_json::Value) -> Result<()> {
    writeln!(io::stdout().lock(), "{result:#}")?;
    Ok(())
}

/// Shows the commands that the reader can try.
pub(super) fn guide(guide: &[super::play::Part]) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}", bold("The demo stays up: try it yourself, as root in another terminal"))?;
    for part in guide {
        writeln!(out, "\n  {}", part.title)?;
        for command in &part.commands {
            writeln!(out, "    {}", coloured(command, CYAN))?;
        }
    }
    writeln!(out, "\nCtrl-C here, or q and Enter, ends the demo and removes everything.\n")?;
    Ok(())
}

/// Reports something that has just happened.
pub(super) fn note(text: &str) {
    // The terminal may be gone: that is one of the ways to end.
    drop(writeln!(io::stderr(), "{text}"));
}

/// Shows the logs of everything that ran, after a failure.
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

/// Wraps text in an SGR code (ECMA-48), on a terminal.
fn coloured(text: &str, code: &str) -> String {
    if io::stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Wraps each line at blanks and indents it by two.
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
