//! PEM text to DER. The DER bytes stay as they were: signatures are verified over them.

use x509_cert::der::Document;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates of a PEM text, in order. `None` for anything but 1 to `max` certificates with blanks around them.
///
/// Intel's quoting enclave ends its chain with a NUL, which is taken for a blank.
pub(crate) fn chain(text: &str, max: usize) -> Option<Vec<Vec<u8>>> {
    let mut rest = text.trim_matches(is_blank);
    let mut certificates = Vec::new();
    while !rest.is_empty() {
        if certificates.len() == max || !rest.starts_with(BEGIN) {
            return None;
        }
        let end = rest.find(END)?.checked_add(END.len())?;
        let (block, tail) = rest.split_at_checked(end)?;
        let (_label, document) = Document::from_pem(block).ok()?;
        certificates.push(document.into_vec());
        rest = tail.trim_start_matches(is_blank);
    }
    (!certificates.is_empty()).then_some(certificates)
}

fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\0'
}

#[cfg(test)]
mod tests {
    use super::*;

    // Any SEQUENCE will do: of one INTEGER.
    const BLOCK: &str = "-----BEGIN CERTIFICATE-----\nMAMCAQU=\n-----END CERTIFICATE-----\n";
    const DER: [u8; 5] = [0x30, 3, 2, 1, 5];

    #[test]
    fn blocks_in_order_with_blanks_around() {
        let text = format!("\n{BLOCK}\n{BLOCK}\0");
        assert_eq!(chain(&text, 2).unwrap(), vec![DER.to_vec(); 2]);
        assert_eq!(chain(BLOCK, 1).unwrap(), vec![DER.to_vec()]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "\0\n",
            "x",
            "-----BEGIN CERTIFICATE-----\nMAMCAQU=\n",
            &format!("x{BLOCK}"),
            &format!("{BLOCK}x"),
            &BLOCK.replace("MAMCAQU=", "MAMCAQU"),
            &BLOCK.replace("MAMCAQU=", "MAMCAQUA"),
        ] {
            assert_eq!(chain(text, 3), None, "{text:?}");
        }
        assert_eq!(chain(&format!("{BLOCK}{BLOCK}"), 1), None);
    }
}
