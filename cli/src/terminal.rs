//! Bytes of a guest or a peer on their way to a terminal: nothing in them may move the cursor, set a title or reorder text.

/// `text` with control and direction characters as escapes, at most `max` characters of it.
pub(crate) fn escaped(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    let mut left = max;
    for c in text.chars() {
        if left == 0 {
            out.push('…');
            break;
        }
        left -= 1;
        push(&mut out, c);
    }
    out
}

/// A line of a log: bytes that are no UTF-8 are escaped too, tabs stay.
pub(crate) fn escaped_line(line: &[u8]) -> String {
    let mut out = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\t' { out.push(c) } else { push(&mut out, c) }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

fn push(out: &mut String, c: char) {
    match c {
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
            out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        }
        c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(
            escaped("a\u{1b}[2J\r\n\u{9b}b\u{202e}c", 99),
            "a\\x1b[2J\\x0d\\x0a\\x9bb\\u{202e}c"
        );
        assert_eq!(escaped("äöü", 2), "äö…");
        assert_eq!(escaped_line(b"\ta\xff\xfe\x07\xc3\xa4"), "\ta\\xff\\xfe\\x07ä");
    }
}
