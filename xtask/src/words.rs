//! `cargo xtask words`: the language of the comments in numbers, next to those of well-kept projects.

mod functions;
mod product;
mod style;

use crate::{text::files, workspace};
use anyhow::Context as _;
use comfy_table::{Table, presets};
use product::Product;
use serde::Serialize;
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};
use style::Measure;

/// The document that is to stay short.
const ARCHITECTURE: &str = "ARCHITECTURE.md";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure another checkout of this repository.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Also list the places of the words that are counted; as text only.
    #[arg(long, conflicts_with = "output")]
    places: bool,
    /// Format of the result.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// The result.
#[derive(Serialize)]
struct Report {
    product: Language,
    with_tests_and_tasks: Language,
    shape: Shape,
}

#[derive(Serialize)]
struct Language {
    words_of_comment: usize,
    measures: Vec<Measure>,
}

/// Sizes, of product code without its unit tests.
#[derive(Serialize)]
struct Shape {
    files: usize,
    longest_file: Longest,
    functions: usize,
    median_function: usize,
    longest_function: Longest,
    lines_of_code: usize,
    lines_of_comment: usize,
    /// Bytes; 0 if there is no such file.
    architecture_bytes: u64,
}

#[derive(Serialize, Default)]
struct Longest {
    name: String,
    lines: usize,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let root = args.root.as_deref().unwrap_or(workspace::root());
    let files = files::read(root)?;
    let (product, all) = (Product::of(&files), Product::with_tests_and_tasks(&files));
    let (language, _) = language(&product);
    let (language_of_all, places) = self::language(&all);
    let report = Report { product: language, with_tests_and_tasks: language_of_all, shape: shape(&product, root) };
    let mut out = io::stdout().lock();
    if args.output == "json" {
        return writeln!(out, "{}", serde_json::to_string_pretty(&report)?).context("writing the result");
    }
    for place in places.iter().filter(|_| args.places) {
        writeln!(out, "{place}")?;
    }
    writeln!(out, "{}\n{}", language_table(&report), shape_table(&report.shape)).context("writing the result")
}

/// Returns the language of a part of the code, and the places of all that was counted.
fn language(code: &Product<'_>) -> (Language, Vec<String>) {
    let (measures, places) = style::measure(code);
    (Language { words_of_comment: code.words(), measures }, places)
}

fn shape(product: &Product<'_>, root: &Path) -> Shape {
    let functions = functions::of(product);
    let mut lengths: Vec<usize> = functions.iter().map(|function| function.lines).collect();
    lengths.sort_unstable();
    let longest_file = product.files().map(|(name, lines)| Longest { name: name.to_owned(), lines: lines.len() });
    Shape {
        files: product.files().count(),
        longest_file: longest_file.max_by_key(|file| file.lines).unwrap_or_default(),
        functions: functions.len(),
        median_function: lengths.get(lengths.len() / 2).copied().unwrap_or_default(),
        longest_function: functions.into_iter().max_by_key(|function| function.lines).unwrap_or_default(),
        lines_of_code: product.lines().filter(|line| !line.code.trim().is_empty()).count(),
        lines_of_comment: product.lines().filter(|line| line.comment.is_some()).count(),
        architecture_bytes: fs::metadata(root.join(ARCHITECTURE)).map_or(0, |metadata| metadata.len()),
    }
}

fn language_table(report: &Report) -> Table {
    let (product, all) = (&report.product, &report.with_tests_and_tasks);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["comments", "product", "with tests and tasks", "highest elsewhere", "goal, at most", ""]);
    table.add_row(["words".to_owned(), product.words_of_comment.to_string(), all.words_of_comment.to_string()]);
    for (measure, of_all) in product.measures.iter().zip(&all.measures) {
        let value = |value: f64| measure.unit.format(value);
        let counted = |measure: &Measure| format!("{} ({})", value(measure.value), measure.count);
        table.add_row([
            format!("{} {}", measure.name, measure.unit.name()),
            counted(measure),
            counted(of_all),
            value(measure.highest_elsewhere),
            value(measure.goal),
            if measure.value <= measure.goal { "ok" } else { "above" }.to_owned(),
        ]);
    }
    table
}

fn shape_table(shape: &Shape) -> Table {
    let longest = |longest: &Longest| format!("{} ({})", longest.lines, longest.name);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["product code without unit tests", ""]);
    table.add_row(["files".to_owned(), shape.files.to_string()]);
    table.add_row(["longest file, lines".to_owned(), longest(&shape.longest_file)]);
    table.add_row(["functions".to_owned(), shape.functions.to_string()]);
    table.add_row(["median function, lines".to_owned(), shape.median_function.to_string()]);
    table.add_row(["longest function, lines".to_owned(), longest(&shape.longest_function)]);
    table.add_row(["lines with code".to_owned(), shape.lines_of_code.to_string()]);
    table.add_row(["lines with comments".to_owned(), shape.lines_of_comment.to_string()]);
    table.add_row([format!("{ARCHITECTURE}, bytes"), shape.architecture_bytes.to_string()]);
    table
}
