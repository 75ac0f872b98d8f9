//! Somebody else's text, before it is kept or shown: from an annotation, a pod's request, or STS.

/// Longest quotation, characters.
const QUOTE_LEN_MAX: usize = 200;

/// One printable line of it, cut.
pub(crate) fn quote(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(QUOTE_LEN_MAX).collect()
}

/// At most `len` bytes of it, cut between characters.
pub(crate) fn cut(mut text: String, len: usize) -> String {
    text.truncate(text.floor_char_boundary(len));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotations_are_one_bounded_line() {
        assert_eq!(quote("a\r\nb\u{1b}[31m"), "a\u{fffd}\u{fffd}b\u{fffd}[31m");
        assert_eq!(quote(&"ä".repeat(1000)).chars().count(), QUOTE_LEN_MAX);
    }

    #[test]
    fn cuts_are_between_characters() {
        assert_eq!(cut("äää".to_owned(), 3), "ä");
        assert_eq!(cut("abc".to_owned(), 3), "abc");
    }
}
