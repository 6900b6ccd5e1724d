//! Where a server is: scheme, host and port, and nothing else.
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP. For content that is authenticated by itself.
    Http,
    /// TLS, with the authorities that the client was given.
    Https,
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// A server's scheme, host and port, as in `https://10.0.2.2:8443`.
///
/// Made by [`FromStr`] only: a path, a query, user information, an empty host and port 0 cannot be in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Origin {
    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A DNS name in lower case, or an address; an IPv6 address stands without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, which is the scheme's own where the text named none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host[:port]` as the `Host` header and registries' references have it; the scheme's own port is left out.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        if text.len() > MAX_TEXT {
            return Err(OriginError::TooLong);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err(OriginError::Scheme),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return Err(OriginError::UserInfo);
        }
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(OriginError::Path);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => scheme.default_port(),
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(OriginError::Port),
            },
            Some(_) => return Err(OriginError::Port),
        };
        Ok(Self { scheme, host, port })
    }
}

/// Why a text is not an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// Longer than any host name can make it.
    #[error("the address is longer than {MAX_TEXT} bytes")]
    TooLong,
    /// Neither `http://` nor `https://` at the start.
    #[error("the address must start with http:// or https://")]
    Scheme,
    /// `user@` or `user:password@`.
    #[error("the address must not hold a user name or a password")]
    UserInfo,
    /// Something follows host and port.
    #[error("the address must end after host and port: no path, query or fragment")]
    Path,
    /// The host is empty or has characters that no name or address has.
    #[error("the host is neither a DNS name nor an IP address")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
}

/// Host (checked, without brackets) and the text after its colon.
fn split_port(authority: &str) -> Result<(String, Option<&str>), OriginError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(OriginError::Host)?;
        let host: Ipv6Addr = host.parse().map_err(|_| OriginError::Host)?;
        let port = match after {
            "" => None,
            after => Some(after.strip_prefix(':').ok_or(OriginError::Host)?),
        };
        return Ok((host.to_string(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if host.is_empty() || host.len() > 253 || !host.split('.').all(label) {
        return Err(OriginError::Host);
    }
    Ok((host.to_ascii_lowercase(), port))
}

const MAX_TEXT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_addresses_and_ports() {
        for (text, host, port, shown) in [
            ("https://10.0.2.2:8443", "10.0.2.2", 8443, "https://10.0.2.2:8443"),
            ("https://KBS.example", "kbs.example", 443, "https://kbs.example"),
            ("http://localhost:5000/", "localhost", 5000, "http://localhost:5000"),
            ("http://h:80", "h", 80, "http://h"),
            ("https://[::1]:8443", "::1", 8443, "https://[::1]:8443"),
            ("https://[fd00::0:1]", "fd00::1", 443, "https://[fd00::1]"),
        ] {
            let origin: Origin = text.parse().unwrap();
            assert_eq!((origin.host(), origin.port()), (host, port), "{text}");
            assert_eq!(origin.to_string(), shown);
            assert_eq!(shown.parse::<Origin>().unwrap(), origin);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for (text, error) in [
            ("", OriginError::Scheme),
            ("ftp://h", OriginError::Scheme),
            ("HTTPS//h", OriginError::Scheme),
            ("https://", OriginError::Host),
            ("https:///", OriginError::Host),
            ("https://a b", OriginError::Host),
            ("https://a..b", OriginError::Host),
            ("https://-a", OriginError::Host),
            ("https://h\r\nx:1", OriginError::Host),
            ("https://[::1", OriginError::Host),
            ("https://[::g]", OriginError::Host),
            ("https://[::1]8443", OriginError::Host),
            ("https://u:p@h", OriginError::UserInfo),
            ("https://h/kbs", OriginError::Path),
            ("https://h?x", OriginError::Path),
            ("https://h#x", OriginError::Path),
            ("https://h:", OriginError::Port),
            ("https://h:0", OriginError::Port),
            ("https://h:65536", OriginError::Port),
            ("https://h:+1", OriginError::Port),
            ("https://::1", OriginError::Host),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap_err(), error, "{text:?}");
        }
        assert_eq!(
            format!("https://{}", "a".repeat(600)).parse::<Origin>(),
            Err(OriginError::TooLong)
        );
    }
}
