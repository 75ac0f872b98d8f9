//! The syntax of `--host-interface`, which is that of `-i` of iptables: `eth0`, `cali+`, `!eth0`, and lists of them.

/// Longest name of an interface, bytes (`IFNAMSIZ` without the final NUL, include/uapi/linux/if.h).
const NAME_LEN_MAX: usize = 15;
/// The loopback interface. No pod is behind it, so no pattern matches it.
const LOOPBACK: &str = "lo";

/// The interfaces with pods behind them: those that a positive pattern and no negative pattern matches. With only
/// negative patterns, all that no pattern matches. Never `lo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InterfaceMatch {
    wanted: Vec<Pattern>,
    unwanted: Vec<Pattern>,
}

/// One pattern, without its `!`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    Prefix(String),
}

/// An invalid pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("no pattern: name an interface, for example cali+, or !eth0 for every interface except eth0")]
    None,
    #[error("an empty pattern in the list; leave out the comma")]
    Empty,
    #[error("{0:?} names no interface after the !")]
    NoName(String),
    #[error("{0:?}: `{1}` cannot be part of an interface name; a + at the end matches every continuation")]
    Character(String, char),
    #[error("{0:?} is longer than the {NAME_LEN_MAX} bytes of an interface name")]
    TooLong(String),
    #[error("{0:?} can match no interface: the loopback is never redirected")]
    Loopback(String),
    #[error("{0:?} excludes every interface")]
    NothingLeft(String),
}

impl InterfaceMatch {
    /// Parses a list of patterns and ignores space around them. Patterns that can match nothing are errors, too.
    pub(crate) fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for text in patterns {
            let text = text.as_ref().trim();
            match text.strip_prefix('!') {
                None if text.is_empty() => return Err(PatternError::Empty),
                None => wanted.push(Self::one(text, text)?),
                // iptables allows a space between the two.
                Some(negated) => unwanted.push(Self::one(text, negated.trim_start())?),
            }
            if matches!(wanted.last(), Some(Pattern::Exact(name)) if name == LOOPBACK) {
                return Err(PatternError::Loopback(text.to_owned()));
            }
            if matches!(unwanted.last(), Some(Pattern::Prefix(prefix)) if prefix.is_empty()) {
                return Err(PatternError::NothingLeft(text.to_owned()));
            }
        }
        if wanted.is_empty() && unwanted.is_empty() {
            return Err(PatternError::None);
        }
        Ok(Self { wanted, unwanted })
    }

    /// Returns true if a negative pattern matches `name`.
    pub(crate) fn excludes(&self, name: &str) -> bool {
        self.unwanted.iter().any(|pattern| pattern.matches(name))
    }

    /// Returns true if pods are behind the interface `name`.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let wanted = &self.wanted;
        name != LOOPBACK
            && (wanted.is_empty() || wanted.iter().any(|pattern| pattern.matches(name)))
            && !self.excludes(name)
    }

    /// Parses one pattern. `pattern` is without its `!`; `text` is the input for errors.
    fn one(text: &str, pattern: &str) -> Result<Pattern, PatternError> {
        let (name, is_prefix) = match pattern.strip_suffix('+') {
            Some(prefix) => (prefix, true),
            None => (pattern, false),
        };
        if name.is_empty() && !is_prefix {
            return Err(PatternError::NoName(text.to_owned()));
        }
        if name.len() > NAME_LEN_MAX {
            return Err(PatternError::TooLong(text.to_owned()));
        }
        // The kernel's rule (dev_valid_name in net/core/dev.c), and the special characters of this syntax.
        let bad = |c: &char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '!' | '+' | '*' | ',');
        if let Some(character) = name.chars().find(bad) {
            return Err(PatternError::Character(text.to_owned(), character));
        }
        Ok(if is_prefix { Pattern::Prefix(name.to_owned()) } else { Pattern::Exact(name.to_owned()) })
    }
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_iptables_does() {
        let table: &[(&[&str], &[&str], &[&str])] = &[
            (&["docker0"], &["docker0"], &["docker", "docker00", "eth0", "lo", ""]),
            (&["cali+"], &["cali1", "cali0123456789a", "cali"], &["cal", "xcali1", "eth0", "lo"]),
            (&["!eth0"], &["cali1", "docker0", "eth1", "eth00"], &["eth0", "lo"]),
            (&["! eth0"], &["cali1"], &["eth0", "lo"]),
            (&["!eth+"], &["cali1"], &["eth0", "eth1", "eth", "lo"]),
            (&["+"], &["cali1", "eth0"], &["lo"]),
            (&["l+"], &["lxc1", "lo0"], &["lo", "eth0"]),
            (&["cali+", "eni+"], &["cali1", "eni1"], &["eth0", "lo"]),
            (&["cali+", "!cali9"], &["cali1"], &["cali9", "eth0", "lo"]),
            (&["!cali9", "cali+"], &["cali1", "cali99"], &["cali9", "eth0"]),
            (&["!eth0", "!eth1"], &["cali1", "eth2"], &["eth0", "eth1", "lo"]),
            (&["!lo"], &["cali1", "eth0"], &["lo"]),
            (&["weave", "weave"], &["weave"], &["weave0"]),
            (&[" cali+ "], &["cali1"], &["eth0"]),
            (&["a23456789012345"], &["a23456789012345"], &["a2345678901234"]),
            (&["veth.1", "br-é"], &["veth.1", "br-é"], &["veth1"]),
        ];
        for (patterns, yes, no) in table {
            let parsed = InterfaceMatch::parse(patterns).unwrap();
            for name in *yes {
                assert!(parsed.matches(name), "{patterns:?} must match {name:?}");
            }
            for name in *no {
                assert!(!parsed.matches(name), "{patterns:?} must not match {name:?}");
            }
        }
    }

    #[test]
    fn errors_name_the_pattern() {
        let table: &[(&[&str], &str)] = &[
            (&[], "no pattern"),
            (&[""], "an empty pattern"),
            (&["cali+", ""], "an empty pattern"),
            (&["!"], r#""!" names no interface"#),
            (&["!!eth0"], r#""!!eth0": `!` cannot"#),
            (&["ca+li"], r#""ca+li": `+` cannot"#),
            (&["cali++"], r#""cali++": `+` cannot"#),
            (&["cali*"], r#""cali*": `*` cannot"#),
            (&["a/b"], r#""a/b": `/` cannot"#),
            (&["eth0:1"], r#""eth0:1": `:` cannot"#),
            (&["eth 0"], r#""eth 0": ` ` cannot"#),
            (&["a234567890123456"], r#""a234567890123456" is longer than the 15 bytes"#),
            (&["!a234567890123456+"], r#""!a234567890123456+" is longer"#),
            (&["lo"], r#""lo" can match no interface"#),
            (&["cali+", "lo"], r#""lo" can match no interface"#),
            (&["!+"], r#""!+" excludes every interface"#),
        ];
        for (patterns, text) in table {
            let error = InterfaceMatch::parse(patterns).unwrap_err().to_string();
            assert!(error.contains(text), "{patterns:?}: {error}");
        }
    }
}
