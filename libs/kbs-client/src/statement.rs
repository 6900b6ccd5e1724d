//! What owners sign, as text: one form for the tool that signs and the broker that verifies.
//!
//! Each line is a word, a blank and a value; no value can hold a blank or a line feed, so two statements that say different
//! things differ. The first line keeps a signature from meaning anything elsewhere.

use std::fmt::Write as _;

use crate::wire::ResourcePath;

/// One owner's yes: this version of a resource may go to guests with this launch digest and this policy.
///
/// The latest word of an owner counts, by `issued`. One that expires when it was issued, or before, is a no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The resource.
    pub resource: ResourcePath,
    /// Its version at the broker.
    pub version: u64,
    /// The guest's launch digest.
    pub launch_digest: [u8; 48],
    /// SHA-256 of the guest's initdata document.
    pub policy_digest: [u8; 32],
    /// When it was signed, in seconds since the Unix epoch.
    pub issued: u64,
    /// When it stops to count.
    pub expires: u64,
}

impl Approval {
    /// The text that is signed.
    pub fn statement(&self) -> String {
        format!(
            "cella-kbs approval 1\nresource {}\nversion {}\nlaunch-digest {}\npolicy-digest {}\nissued {}\nexpires {}\n",
            self.resource,
            self.version,
            hex(&self.launch_digest),
            hex(&self.policy_digest),
            self.issued,
            self.expires
        )
    }
}

/// Whose yes a resource needs from now on. Signed by all who are asked today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The resource.
    pub resource: ResourcePath,
    /// One more than that of the owners of today; 1 for the first.
    pub generation: u64,
    /// Name and Ed25519 public key of each, in the order given.
    pub owners: Vec<(String, [u8; 32])>,
}

impl Ownership {
    /// The text that is signed.
    pub fn statement(&self) -> String {
        let mut text = format!(
            "cella-kbs owners 1\nresource {}\ngeneration {}\n",
            self.resource, self.generation
        );
        for (name, key) in &self.owners {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "owner {name} {}", hex(key));
        }
        text
    }
}

/// Whether a text can name an owner: 1 to 64 characters out of `A-Z a-z 0-9 _ . -`.
pub fn is_owner_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_these_texts() {
        let approval = Approval {
            resource: "demo/key/1".parse().unwrap(),
            version: 3,
            launch_digest: [0xab; 48],
            policy_digest: [0x01; 32],
            issued: 1_800_000_000,
            expires: 1_800_086_400,
        };
        let (launch, policy) = ("ab".repeat(48), "01".repeat(32));
        assert_eq!(
            approval.statement(),
            format!(
                "cella-kbs approval 1\nresource demo/key/1\nversion 3\nlaunch-digest {launch}\npolicy-digest {policy}\n\
                 issued 1800000000\nexpires 1800086400\n"
            )
        );
        let ownership = Ownership {
            resource: "demo/key/1".parse().unwrap(),
            generation: 1,
            owners: vec![("alice".to_owned(), [2; 32]), ("bob".to_owned(), [3; 32])],
        };
        let (alice, bob) = ("02".repeat(32), "03".repeat(32));
        assert_eq!(
            ownership.statement(),
            format!("cella-kbs owners 1\nresource demo/key/1\ngeneration 1\nowner alice {alice}\nowner bob {bob}\n")
        );
    }

    #[test]
    fn names_have_no_blanks() {
        assert!(is_owner_name("alice") && is_owner_name(&"a".repeat(64)));
        for bad in ["", "a b", "a\nb", "ä", &"a".repeat(65)] {
            assert!(!is_owner_name(bad), "{bad}");
        }
    }
}
