//! Text of the host's, of an image's or of another peer's, made fit for a message or a line.

/// Quoted, escaped and cut: a name or value that is refused, within a message.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(MAX_SHOWN).collect();
    format!("{cut:?}")
}

/// One bounded line without control characters, whatever is in it.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .take(MAX_LINE)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Characters of foreign text in a message.
const MAX_SHOWN: usize = 64;

/// Characters of a line.
const MAX_LINE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_quoted_and_cut() {
        assert_eq!(shown("a\n\"b"), r#""a\n\"b""#);
        assert_eq!(shown(&"x".repeat(500)).len(), 66);
    }

    #[test]
    fn a_line_is_one() {
        assert_eq!(one_line("a\nb\u{1b}[2J"), "a b [2J");
        assert_eq!(one_line(&"x".repeat(5000)).len(), 1024);
    }
}
