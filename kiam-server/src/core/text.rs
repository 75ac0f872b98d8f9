//! Text for logs, Events and names, made from text that the server did not write: annotations, requests, answers of
//! STS.

/// Longest quotation, characters.
const QUOTE_LEN_MAX: usize = 200;
/// Bytes of a SHA-256 that a short digest shows.
const SHORT_DIGEST_LEN: usize = 4;

/// Quotes a text: one line of printable characters, at most [`QUOTE_LEN_MAX`] of them.
pub(crate) fn quote(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(QUOTE_LEN_MAX).collect()
}

/// Cuts a text to at most `len` bytes, between characters.
pub(crate) fn cut(mut text: String, len: usize) -> String {
    text.truncate(text.floor_char_boundary(len));
    text
}

/// Joins the lines of a text with single spaces.
pub(crate) fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the first eight hexadecimal digits of the text's SHA-256.
pub(crate) fn short_digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(SHORT_DIGEST_LEN).map(|byte| format!("{byte:02x}")).collect()
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

    #[test]
    fn lines_become_one() {
        assert_eq!(in_one_line("a\n\tstatus code: 403,\r\n b"), "a status code: 403, b");
    }

    #[test]
    fn a_short_digest_is_the_beginning_of_the_sha256() {
        assert_eq!(short_digest("abc"), "ba7816bf");
    }
}
