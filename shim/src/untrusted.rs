//! Text that a guest, QEMU or another peer wrote, made fit for a log line or an error message.

/// Longest message of a peer that is passed on, in bytes.
pub const MAX_MESSAGE: usize = 1024;

/// `text` cut to `max` bytes (at a character boundary) with control characters replaced by `?`, so that it can neither forge
/// a log line nor drive a terminal.
pub fn printable(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        if out.len() + c.len_utf8() > max {
            out.push('…');
            break;
        }
        out.push(if c.is_control() || is_bidi(c) { '?' } else { c });
    }
    out
}

/// The last `lines` lines of `bytes`, each made [`printable`] with at most `max` bytes.
pub fn last_lines(bytes: &[u8], lines: usize, max: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    all.iter()
        .skip(all.len().saturating_sub(lines))
        .map(|line| printable(line, max))
        .collect()
}

/// Characters that reorder the text around them.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_direction_marks_are_replaced() {
        assert_eq!(printable("a\nb\x1b[31mc\u{202e}d", 64), "a?b?[31mc?d");
    }

    #[test]
    fn cut_falls_on_a_character_boundary() {
        assert_eq!(printable("ää", 3), "ä…");
        assert_eq!(printable("abc", 3), "abc");
    }

    #[test]
    fn last_lines_skip_blanks_and_survive_bad_utf8() {
        assert_eq!(last_lines(b"one\n\ntwo\r\n\xff!\n", 2, 16), ["two", "\u{fffd}!"]);
        assert_eq!(last_lines(b"", 2, 16), Vec::<String>::new());
    }
}
