//! Lengths of functions.

use super::{Longest, product::Product};
use crate::text::{pattern, rust::Line};
use regex::Regex;
use std::sync::LazyLock;

static FUNCTION: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bfn (\w+)"));

/// Returns the functions that have a body, each with its number of lines from `fn` to the closing brace.
pub(super) fn of(product: &Product<'_>) -> Vec<Longest> {
    product.files().flat_map(|(path, lines)| of_file(path, lines)).collect()
}

fn of_file(path: &str, lines: &[Line]) -> Vec<Longest> {
    let mut functions = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let name = FUNCTION.captures(&line.code).and_then(|captures| captures.get(1));
        let length = name.and_then(|name| body_lines(lines.get(index..)?, name.end()));
        if let (Some(name), Some(lines)) = (name, length) {
            functions.push(Longest { name: format!("{} in {path}", name.as_str()), lines });
        }
    }
    functions
}

/// Returns the number of lines to the end of the body; `None` for a function without one. What comes before the
/// function's parameters, in the first line, is not looked at.
fn body_lines(lines: &[Line], from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (index, line) in lines.iter().enumerate() {
        let code = if index == 0 { line.code.get(from..)? } else { &line.code };
        for character in code.chars() {
            match character {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' => depth -= 1,
                '}' if depth == 1 => return Some(index + 1),
                '}' => depth -= 1,
                ';' if depth == 0 => return None,
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::rust;

    #[test]
    fn functions_are_measured_from_name_to_end() {
        let text = "fn a() {}\nfn b(\n    x: [u8; 2],\n) -> u8 {\n    if x { 1 }\n    \"}\"\n}\ntrait T { fn c(); }\n";
        let lengths = of_file("x.rs", &rust::lines(text)).iter().map(|function| function.lines).collect::<Vec<_>>();
        assert_eq!(lengths, [1, 6]);
    }
}
