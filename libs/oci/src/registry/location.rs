//! Where a registry may send its client: to itself.
use cella_http::Origin;

use crate::manifest::cut;

/// Path and query of `location` if it lies at `origin`; otherwise the place that it names, fit to be shown.
pub(super) fn within(origin: &Origin, location: &str) -> Result<String, String> {
    let location = location.split('#').next().unwrap_or_default();
    let absolute = match location.strip_prefix("//") {
        Some(rest) => format!("{}://{rest}", origin.scheme()),
        None if location.starts_with('/') => return Ok(location.to_owned()),
        None => location.to_owned(),
    };
    let authority_at = absolute.find("://").map(|at| at + 3).ok_or_else(|| cut(&absolute))?;
    let (_, rest) = absolute.split_at(authority_at);
    let path_at = authority_at + rest.find(['/', '?', '\\']).unwrap_or(rest.len());
    let (named, path) = absolute.split_at(path_at);
    if !named.parse::<Origin>().is_ok_and(|named| named == *origin) {
        return Err(cut(named));
    }
    if path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Ok(format!("/{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_at_the_origin_or_says_where_it_would_go() {
        let origin: Origin = "http://10.0.2.2:5000".parse().unwrap();
        for (location, path) in [
            ("/v2/a?x=1", "/v2/a?x=1"),
            ("/v2/a#frag", "/v2/a"),
            ("http://10.0.2.2:5000/v2/a?x=1", "/v2/a?x=1"),
            ("http://10.0.2.2:5000", "/"),
            ("http://10.0.2.2:5000?x", "/?x"),
            ("//10.0.2.2:5000/b", "/b"),
        ] {
            assert_eq!(within(&origin, location).as_deref(), Ok(path), "{location}");
        }
        for (location, target) in [
            ("https://10.0.2.2:5000/a", "https://10.0.2.2:5000"),
            ("http://10.0.2.2:5001/a", "http://10.0.2.2:5001"),
            ("http://10.0.2.2/a", "http://10.0.2.2"),
            (
                "http://10.0.2.2:5000@evil.example/a",
                "http://10.0.2.2:5000@evil.example",
            ),
            ("http://10.0.2.2:5000\\@evil.example/a", "http://10.0.2.2:5000"),
            ("//evil.example/a", "http://evil.example"),
            ("blobs/elsewhere", "blobs/elsewhere"),
            ("", ""),
            ("file:///etc/passwd", "file://"),
        ] {
            let found = within(&origin, location);
            // A backslash ends the authority; what follows is a path at this very origin.
            if location.contains('\\') {
                assert_eq!(found.as_deref(), Ok("/\\@evil.example/a"));
            } else {
                assert_eq!(found, Err(target.to_owned()), "{location}");
            }
        }
    }
}
