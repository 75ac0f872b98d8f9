//! The roles that a namespace permits to its pods.

use super::ids::RoleArn;
use regex::bytes::{Regex, RegexBuilder};

/// Longest expression, bytes: room for several hundred ARNs.
const EXPRESSION_LEN_MAX: usize = 64 * 1024;
/// Most memory of a compiled expression, bytes: every namespace can have one.
const COMPILED_LEN_MAX: usize = 1024 * 1024;
/// Longest error that is kept, characters: the regexp library quotes the expression.
const ERROR_LEN_MAX: usize = 300;

/// A namespace, as last received from the API server.
#[derive(Clone, Debug)]
pub(crate) struct NamespaceFacts {
    pub(crate) name: String,
    pub(crate) permitted: Permitted,
}

/// The part of an ARN that the expression must match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Anchoring {
    /// The whole ARN.
    Strict,
    /// Any part of the ARN (`--disable-strict-namespace-regexp`).
    Anywhere,
}

/// The annotation `iam.amazonaws.com/permitted`.
#[derive(Clone, Debug)]
pub(crate) enum Permitted {
    /// No annotation, or an empty one: no role is permitted.
    Nothing,
    /// Not a regular expression: no role is permitted.
    Invalid { expression: String, error: String },
    /// Roles with a matching ARN are permitted.
    Matching { expression: String, regex: Regex },
}

impl Permitted {
    /// Compiles the annotation.
    pub(crate) fn compile(expression: &str, anchoring: Anchoring) -> Self {
        if expression.is_empty() {
            return Self::Nothing;
        }
        match compile(expression, anchoring) {
            Ok(regex) => Self::Matching { expression: expression.to_owned(), regex },
            Err(error) => Self::Invalid { expression: expression.chars().take(ERROR_LEN_MAX).collect(), error },
        }
    }

    /// Returns `true` if compiling this expression would give the same result.
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
    // Without the anchors first: `a)|(?:b` is not an expression, but would become one inside the group below.
    let alone = build(expression)?;
    match anchoring {
        Anchoring::Anywhere => Ok(alone),
        Anchoring::Strict => build(&format!("^(?:{expression})$")),
    }
}

/// Compiles as Go's regexp does: classes such as `\d` are ASCII.
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
    fn an_invalid_expression_permits_nothing() {
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
