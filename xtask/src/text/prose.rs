//! Prose without the code in it.

/// Returns the lines with what is between backticks, and in fenced code, taken out; one for each that is given.
pub(crate) fn without_code<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let (mut in_fence, mut in_span) = (false, false);
    let mut without = Vec::new();
    for line in lines {
        if is_fence(line) {
            (in_fence, in_span) = (!in_fence, false);
            without.push(String::new());
            continue;
        }
        // A span of code may go over the end of a line, but not over that of a paragraph.
        in_span &= !line.trim().is_empty();
        without.push(if in_fence { String::new() } else { outside_spans(line, &mut in_span) });
    }
    without
}

/// Returns true for the line that opens or closes fenced code.
pub(crate) fn is_fence(line: &str) -> bool {
    line.trim_start().starts_with("```")
}

fn outside_spans(line: &str, in_span: &mut bool) -> String {
    let mut outside = String::new();
    for (index, part) in line.split('`').enumerate() {
        if index > 0 {
            *in_span = !*in_span;
            // A word's place stays taken.
            outside.push('`');
        }
        if !*in_span {
            outside.push_str(part);
        }
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::without_code;

    #[test]
    fn takes_code_out() {
        let text = "a `b` c\n```\nd\n```\ne `f\ng` h\n\n`i\n\nj";
        assert_eq!(without_code(text.lines()), ["a `` c", "", "", "", "e `", "` h", "", "`", "", "j"]);
    }
}
