//! What a namespace permits its pods.

use super::ids::RoleArn;
use regex::bytes::{Regex, RegexBuilder};

/// Longest expression: some hundred ARNs in a row.
const EXPRESSION_LEN_MAX: usize = 64 * 1024;
/// Most memory that a compiled expression may take, bytes: every namespace can have one.
const COMPILED_LEN_MAX: usize = 1024 * 1024;
/// Longest text of an error that is kept: the regexp library quotes the expression.
const ERROR_LEN_MAX: usize = 300;

/// A namespace, as the API server last told.
#[derive(Clone, Debug)]
pub(crate) struct NamespaceFacts {
    pub(crate) name: String,
    pub(crate) permitted: Permitted,
}

/// How the expression is laid against an ARN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Anchoring {
    /// It must match the whole ARN.
    Strict,
    /// It may match anywhere in the ARN (`--disable-strict-namespace-regexp`).
    Anywhere,
}

/// The annotation `iam.amazonaws.com/permitted`.
#[derive(Clone, Debug)]
pub(crate) enum Permitted {
    /// No annotation, or an empty one: no role at all.
    Nothing,
    /// Not an expression: no role at all.
    Invalid { expression: String, error: String },
    /// The roles whose ARN matches.
    Matching { expression: String, regex: Regex },
}

impl Permitted {
    /// Compiles the annotation, once per change.
    pub(crate) fn compile(expression: &str, anchoring: Anchoring) -> Self {
        if expression.is_empty() {
            return Self::Nothing;
        }
        match compile(expression, anchoring) {
            Ok(regex) => Self::Matching { expression: expression.to_owned(), regex },
            Err(error) => Self::Invalid { expression: expression.chars().take(ERROR_LEN_MAX).collect(), error },
        }
    }

    /// Whether it would compile to the same.
    pub(crate) fn is_of(&self, expression: &str) -> bool {
        match self {
            Self::Nothing => expression.is_empty(),
            Self::Invalid { .. } => false,
            Self::Matching { expression: own, .. } => own == expression,
        }
    }

    pub(crate) fn permits(&self, role: &RoleArn) -> bool {
        matches!(self, Self::Matching { regex, .. } if regex.is_match(role.as_str().as_bytes()))
    }
}

fn compile(expression: &str, anchoring: Anchoring) -> Result<Regex, String> {
    if expression.len() > EXPRESSION_LEN_MAX {
        return Err(format!("it is longer than {EXPRESSION_LEN_MAX} characters"));
    }
    // By itself first: `a)|(?:b` is no expression, though it would be one between the brackets below.
    let alone = build(expression)?;
    match anchoring {
        Anchoring::Anywhere => Ok(alone),
        Anchoring::Strict => build(&format!("^(?:{expression})$")),
    }
}

/// As Go's regexp reads it: classes such as `\d` are ASCII.
fn build(expression: &str) -> Result<Regex, String> {
    RegexBuilder::new(expression)
        .unicode(false)
        .size_limit(COMPILED_LEN_MAX)
        .dfa_size_limit(COMPILED_LEN_MAX)
        .build()
        .map_err(|error| last_line(&error.to_string()))
}

/// Returns the last line of the library's error, which names the problem; the lines before it quote the expression.
fn last_line(error: &str) -> String {
    let line = error.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(error);
    line.trim().trim_start_matches("error: ").chars().take(ERROR_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(expression: &str, anchoring: Anchoring, role: &str) -> bool {
        let role = RoleArn::parse(&format!("arn:aws:iam::123456789012:role/{role}")).unwrap();
        Permitted::compile(expression, anchoring).permits(&role)
    }

    #[test]
    fn strict_means_the_whole_arn() {
        for (expression, role, strict, anywhere) in [
            ("", "red", false, false),
            ("o", "red_role", false, true),
            ("role", "red_role", false, true),
            (".*role", "red_role", true, true),
            (".*", "red_role", true, true),
            ("arn:aws:iam::123456789012:role/.*", "red_role", true, true),
            ("arn:aws:iam::123456789012:role/*", "red_role", false, true),
            (".*/subpath/.*", "subpath/red_role", true, true),
            ("arn:aws:iam::123456789012:role/a|arn:aws:iam::123456789012:role/b", "a", true, true),
            ("arn:aws:iam::123456789012:role/a|arn:aws:iam::123456789012:role/b", "admin", false, true),
            ("arn:aws:iam::123456789012:role/a|arn:aws:iam::123456789012:role/b", "x/b", false, false),
            (r"arn:aws:iam::\d{12}:role/red", "red", true, true),
        ] {
            assert_eq!(permits(expression, Anchoring::Strict, role), strict, "strict: {expression} on {role}");
            assert_eq!(permits(expression, Anchoring::Anywhere, role), anywhere, "anywhere: {expression} on {role}");
        }
    }

    #[test]
    fn what_is_no_expression_permits_nothing_and_says_why() {
        let long = "x".repeat(EXPRESSION_LEN_MAX + 1);
        for (expression, text) in [
            ("[", "unclosed character class"),
            ("a)|(?:.*", "unopened group"),
            ("(?:a{1000}){1000}", "size limit"),
            (&long, "longer than"),
        ] {
            match Permitted::compile(expression, Anchoring::Strict) {
                Permitted::Invalid { error, .. } => {
                    assert!(error.contains(text) && !error.contains('\n'), "{error}");
                }
                other => panic!("{expression:.20}: {other:?}"),
            }
        }
    }
}
