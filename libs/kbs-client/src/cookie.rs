//! The session's cookie, held by hand: the guest's clock is the host's word, so `Expires` means nothing here.
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::wire::SESSION_COOKIE;

/// The value that the broker gave the session. No `Debug`: whoever has it has the session.
pub(crate) struct SessionCookie(HeaderValue);

impl SessionCookie {
    /// The session's cookie among the headers of an answer; attributes are not looked at.
    ///
    /// `None` where there is none, or its value is not 1 to 256 characters that a cookie may have.
    pub(crate) fn from_answer(headers: &HeaderMap) -> Option<Self> {
        headers.get_all(SET_COOKIE).iter().find_map(|header| {
            let (name, rest) = header.to_str().ok()?.split_once('=')?;
            let value = rest.split(';').next()?.trim();
            let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b',' | b';' | b'\\');
            if name.trim() != SESSION_COOKIE || value.is_empty() || value.len() > MAX_LEN || !value.bytes().all(allowed)
            {
                return None;
            }
            let mut value = HeaderValue::try_from(format!("{SESSION_COOKIE}={value}")).ok()?;
            value.set_sensitive(true);
            Some(Self(value))
        })
    }

    /// The `Cookie` header to send.
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

const MAX_LEN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SET_COOKIE, HeaderValue::from_static(value));
        }
        Some(
            SessionCookie::from_answer(&headers)?
                .header()
                .to_str()
                .unwrap()
                .to_owned(),
        )
    }

    #[test]
    fn takes_the_value_and_ignores_the_expiry() {
        let expected = Some("kbs-session-id=0123abcd".to_owned());
        assert_eq!(cookie(&["kbs-session-id=0123abcd"]), expected);
        assert_eq!(
            cookie(&["kbs-session-id=0123abcd; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]),
            expected
        );
        assert_eq!(
            cookie(&["other=1; Path=/", "kbs-session-id=0123abcd; Max-Age=0"]),
            expected
        );
    }

    #[test]
    fn refuses_what_is_no_session() {
        for values in [
            &[][..],
            &["kbs-session-id="],
            &["kbs-session-id"],
            &["x-kbs-session-id=1"],
            &["kbs-session-id=a b"],
        ] {
            assert_eq!(cookie(values), None);
        }
    }
}
