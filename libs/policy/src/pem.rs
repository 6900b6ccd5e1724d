//! Certificate authorities as PEM text: shape only. Whoever opens TLS with them parses the DER.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// PEM text that holds one or more certificates and nothing secret. Lines end in LF.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificatePem(String);

impl CertificatePem {
    /// Checks the text's shape: at least one certificate, whole blocks, decodable Base64, no private key.
    pub fn parse(text: &str) -> Result<Self, PemError> {
        if text.len() > MAX_PEM {
            return Err(PemError::TooLarge { found: text.len() });
        }
        if text.contains("PRIVATE KEY") {
            return Err(PemError::PrivateKey);
        }
        let mut certificates = 0_usize;
        let mut body: Option<String> = None;
        for line in text.lines().map(str::trim) {
            match (&mut body, line) {
                (None, BEGIN) => body = Some(String::new()),
                (Some(encoded), END) => {
                    let der = STANDARD.decode(&*encoded).map_err(|_| PemError::Base64 {
                        certificate: certificates,
                    })?;
                    if der.is_empty() {
                        return Err(PemError::Base64 {
                            certificate: certificates,
                        });
                    }
                    certificates += 1;
                    body = None;
                }
                (Some(encoded), line) => encoded.push_str(line),
                (None, line) if line.starts_with("-----") => return Err(PemError::NotACertificate),
                (None, _) => {}
            }
        }
        if body.is_some() {
            return Err(PemError::Unfinished);
        }
        if certificates == 0 {
            return Err(PemError::NotACertificate);
        }
        let mut normal: String = text.trim().lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        normal.push('\n');
        Ok(Self(normal))
    }

    /// The PEM text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// PEM text that is no certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// Longer than any sensible bundle.
    #[error("{found} bytes of PEM, the limit is {MAX_PEM}")]
    TooLarge {
        /// Length of the text.
        found: usize,
    },
    /// Initdata is public: a private key must never be in it.
    #[error("the text holds a private key; only certificates belong here, and the key should be replaced")]
    PrivateKey,
    /// No certificate block, or a block of another kind.
    #[error("expected PEM blocks that begin with {BEGIN}")]
    NotACertificate,
    /// A block without its end line.
    #[error("a certificate has no end line")]
    Unfinished,
    /// A block's body cannot be decoded.
    #[error("certificate {certificate} (from 0) is not valid Base64")]
    Base64 {
        /// Which block.
        certificate: usize,
    },
}

impl fmt::Display for CertificatePem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CertificatePem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificatePem({} bytes)", self.0.len())
    }
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const MAX_PEM: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "-----BEGIN CERTIFICATE-----\nAAAA\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn certificates_pass_and_line_ends_are_normalised() {
        assert_eq!(CertificatePem::parse(GOOD).unwrap().as_str(), GOOD);
        let windows = GOOD.replace('\n', "\r\n");
        assert_eq!(CertificatePem::parse(&windows).unwrap().as_str(), GOOD);
        assert!(CertificatePem::parse(&GOOD.repeat(3)).is_ok());
    }

    #[test]
    fn anything_else_is_refused() {
        let parse = |text: &str| CertificatePem::parse(text).unwrap_err();
        assert_eq!(parse(""), PemError::NotACertificate);
        assert_eq!(parse("no pem"), PemError::NotACertificate);
        assert_eq!(parse("-----BEGIN EC PRIVATE KEY-----\n"), PemError::PrivateKey);
        assert_eq!(parse("-----BEGIN PUBLIC KEY-----\n"), PemError::NotACertificate);
        assert_eq!(parse(&GOOD.replace("AAAA", "A!")), PemError::Base64 { certificate: 0 });
        assert_eq!(parse("-----BEGIN CERTIFICATE-----\nAAAA\n"), PemError::Unfinished);
        assert_eq!(
            parse(&"x".repeat(MAX_PEM + 1)),
            PemError::TooLarge { found: MAX_PEM + 1 }
        );
    }
}
