//! Rust lines, separated into code and comments, with the contents of string literals taken out.

/// One line of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// Code, with empty string literals and without comments.
    pub(crate) code: String,
    pub(crate) comment: Option<Comment>,
}

impl Line {
    /// Returns the text of the comment, or nothing.
    pub(crate) fn comment_text(&self) -> &str {
        self.comment.as_ref().map_or("", |comment| &comment.text)
    }
}

/// The comment of a line, without its slashes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// The kinds of comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `//!`
    Head,
    /// `///`
    Item,
    /// `//` and `/* */`
    Plain,
}

/// The construct that a line ends in, and the next one goes on with.
enum State {
    Code,
    /// Block comment, with the depth of nesting.
    Block(usize),
    Text,
    /// Raw string, with the number of its `#`.
    Raw(usize),
}

/// Reads the lines of a file.
pub(crate) fn lines(text: &str) -> Vec<Line> {
    let mut state = State::Code;
    text.lines().map(|line| read_line(line, &mut state)).collect()
}

/// Returns the first line of each doc comment of an item, with its index.
pub(crate) fn first_lines_of_docs(lines: &[Line]) -> Vec<(usize, String)> {
    let mut firsts = Vec::new();
    let mut in_doc = false;
    for (index, line) in lines.iter().enumerate() {
        let doc = line.comment.as_ref().filter(|comment| comment.kind == Kind::Item);
        if let (Some(doc), false) = (doc, in_doc) {
            firsts.push((index, doc.text.trim().to_owned()));
        }
        in_doc = doc.is_some();
    }
    firsts
}

fn read_line(line: &str, state: &mut State) -> Line {
    let mut read = Line::default();
    let mut rest = line;
    while !rest.is_empty() {
        rest = match *state {
            State::Code => read_code(rest, state, &mut read),
            State::Block(depth) => read_block(rest, depth, state, &mut read),
            State::Text => read_text(rest, state, &mut read),
            State::Raw(hashes) => read_raw(rest, hashes, state, &mut read),
        };
    }
    read
}

/// Reads one token, or one character of it, and returns the rest of the line.
fn read_code<'a>(rest: &'a str, state: &mut State, read: &mut Line) -> &'a str {
    if let Some(comment) = rest.strip_prefix("//") {
        read.comment = Some(line_comment(comment));
        return "";
    }
    if let Some(rest) = rest.strip_prefix("/*") {
        *state = State::Block(1);
        return rest;
    }
    if let Some(rest) = rest.strip_prefix('"') {
        *state = State::Text;
        read.code.push('"');
        return rest;
    }
    let in_word = read.code.ends_with(|last: char| last.is_alphanumeric() || last == '_');
    if !in_word && let Some((hashes, rest)) = raw_start(rest) {
        *state = State::Raw(hashes);
        read.code.push('"');
        return rest;
    }
    if let Some(rest) = after_character(rest) {
        read.code.push_str("''");
        return rest;
    }
    let mut characters = rest.chars();
    read.code.extend(characters.next());
    characters.as_str()
}

fn line_comment(after_slashes: &str) -> Comment {
    let (kind, text) = match after_slashes.split_at_checked(1) {
        Some(("!", text)) => (Kind::Head, text),
        Some(("/", text)) => (Kind::Item, text),
        _ => (Kind::Plain, after_slashes),
    };
    Comment { kind, text: text.to_owned() }
}

/// Returns the number of `#` of a raw string that starts here, and the text after its opening quote.
fn raw_start(rest: &str) -> Option<(usize, &str)> {
    let rest = rest.strip_prefix(['b', 'c']).unwrap_or(rest).strip_prefix('r')?;
    let opening = rest.trim_start_matches('#');
    Some((rest.len() - opening.len(), opening.strip_prefix('"')?))
}

/// Returns the text after a character literal; `None` for a lifetime and everything else.
fn after_character(rest: &str) -> Option<&str> {
    let inside = rest.strip_prefix('\'')?;
    if let Some(escaped) = inside.strip_prefix('\\') {
        let mut characters = escaped.chars();
        characters.next();
        return characters.as_str().split_once('\'').map(|(_, rest)| rest);
    }
    let mut characters = inside.chars();
    characters.next();
    characters.as_str().strip_prefix('\'')
}

fn read_block<'a>(rest: &'a str, depth: usize, state: &mut State, read: &mut Line) -> &'a str {
    let comment = read.comment.get_or_insert(Comment { kind: Kind::Plain, text: String::new() });
    if let Some(rest) = rest.strip_prefix("*/") {
        *state = if depth == 1 { State::Code } else { State::Block(depth - 1) };
        return rest;
    }
    if let Some(rest) = rest.strip_prefix("/*") {
        *state = State::Block(depth + 1);
        return rest;
    }
    let mut characters = rest.chars();
    comment.text.extend(characters.next());
    characters.as_str()
}

fn read_text<'a>(rest: &'a str, state: &mut State, read: &mut Line) -> &'a str {
    let mut characters = rest.chars();
    match characters.next() {
        Some('"') => {
            *state = State::Code;
            read.code.push('"');
        }
        Some('\\') => drop(characters.next()),
        _ => {}
    }
    characters.as_str()
}

fn read_raw<'a>(rest: &'a str, hashes: usize, state: &mut State, read: &mut Line) -> &'a str {
    let end = format!("\"{}", "#".repeat(hashes));
    match rest.split_once(&end) {
        Some((_, rest)) => {
            *state = State::Code;
            read.code.push('"');
            rest
        }
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        lines(text).into_iter().map(|line| line.code).collect()
    }

    fn comments(text: &str) -> Vec<(Kind, String)> {
        lines(text).into_iter().filter_map(|line| line.comment).map(|comment| (comment.kind, comment.text)).collect()
    }

    #[test]
    fn separates_comments_from_code() {
        let text = "//! Head.\n/// Item.\nlet x = 1; // Why.\n/* One /* two */\nthree */ let y = 2;";
        assert_eq!(code(text), ["", "", "let x = 1; ", "", " let y = 2;"]);
        let expected = [
            (Kind::Head, " Head."),
            (Kind::Item, " Item."),
            (Kind::Plain, " Why."),
            (Kind::Plain, " One  two "),
            (Kind::Plain, "three "),
        ];
        assert_eq!(comments(text), expected.map(|(kind, text)| (kind, text.to_owned())));
    }

    #[test]
    fn takes_out_what_string_literals_hold() {
        assert_eq!(code(r#"f("// no \" comment", b"x");"#), [r#"f("", b"");"#]);
        assert_eq!(code("f(r#\"a \" b\"#); r#type"), ["f(\"\"); r#type"]);
        assert_eq!(code("f(\"one\n// two\");"), ["f(\"", "\");"]);
        assert_eq!(code(r"let q = '\''; let s = '/'; fn f<'a>() {}"), ["let q = ''; let s = ''; fn f<'a>() {}"]);
        assert!(comments("let url = \"http://x\";").is_empty());
    }
}
