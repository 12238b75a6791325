//! Strangers' text, made fit for a line of a log or a terminal.

use std::borrow::Cow;

/// Longest text that is shown, in bytes; what is longer is cut.
pub const MAX_SHOWN: usize = 2 * 1024;

/// The text without what ends a line, steers a terminal, changes the direction of writing or cannot
/// be seen, and no longer than [`MAX_SHOWN`].
pub fn printable(text: &str) -> Cow<'_, str> {
    // A character has at most four bytes.
    let cuts = (0..=MAX_SHOWN.min(text.len())).rev().take(4);
    let mut split = cuts.filter_map(|cut| text.split_at_checked(cut));
    let (shown, rest) = split.next().unwrap_or(("", text));
    if rest.is_empty() && !shown.contains(is_hidden) {
        return Cow::Borrowed(shown);
    }
    let mut shown = shown.replace(is_hidden, "\u{fffd}");
    if !rest.is_empty() {
        shown.push('…');
    }
    Cow::Owned(shown)
}

/// Control characters, line and paragraph separators, marks and overrides of direction, characters
/// of no width, and tags.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_or_steers_is_replaced() {
        let cases = [
            ("plain é – 中", "plain é – 中"),
            ("a\u{1b}[31mb\nc\u{9b}", "a\u{fffd}[31mb\u{fffd}c\u{fffd}"),
            ("a\u{202e}b\u{2066}", "a\u{fffd}b\u{fffd}"),
            ("a\u{2028}b\u{200b}\u{feff}", "a\u{fffd}b\u{fffd}\u{fffd}"),
            ("\u{e0041}\u{ad}\u{61c}", "\u{fffd}\u{fffd}\u{fffd}"),
        ];
        for (text, shown) in cases {
            assert_eq!(printable(text), shown, "{text:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let fits = "x".repeat(MAX_SHOWN);
        assert_eq!(printable(&fits), fits);
        let long = "x".repeat(MAX_SHOWN - 1) + "éy";
        assert_eq!(printable(&long), "x".repeat(MAX_SHOWN - 1) + "…");
    }
}
