//! Secrets where everybody can read them (threat T24).
//!
//! An image's configuration stays in the clear when its layers are encrypted, and a policy is public. What looks like a
//! password, token or private key there is refused; the owner may name a variable that only looks like one.

/// Something that looks like a secret. It says where and why, and never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} looks like a secret: {reason}")]
pub(crate) struct Suspicion {
    place: String,
    reason: &'static str,
}

/// Checks `NAME=value` pairs; variables named in `allowed` are not looked at.
pub(crate) fn variables<'a>(
    what: &str,
    pairs: impl IntoIterator<Item = &'a String>,
    allowed: &[String],
) -> Vec<Suspicion> {
    let mut found = Vec::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if allowed.iter().any(|allowed| allowed == name) {
            continue;
        }
        if let Some(reason) = pair_reason(name, value) {
            found.push(Suspicion {
                place: format!("{what} {name:?}"),
                reason,
            });
        }
    }
    found
}

/// Checks a command line: values by themselves, `--name=value`, and `--name value`.
pub(crate) fn arguments(what: &str, args: &[String], allowed: &[String]) -> Vec<Suspicion> {
    let mut found = Vec::new();
    for (index, arg) in args.iter().enumerate() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, value),
            None => (arg.as_str(), args.get(index + 1).map_or("", |next| next.as_str())),
        };
        let name = name.trim_start_matches('-');
        if allowed.iter().any(|allowed| allowed == name) {
            continue;
        }
        let reason = value_reason(arg).or_else(|| arg.starts_with('-').then(|| pair_reason(name, value)).flatten());
        if let Some(reason) = reason {
            found.push(Suspicion {
                place: format!("{what}[{index}]"),
                reason,
            });
        }
    }
    found
}

/// Checks free text, such as a line of an image's history.
pub(crate) fn text(what: &str, text: &str, allowed: &[String]) -> Vec<Suspicion> {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.trim_matches(['"', '\'']).to_owned())
        .collect();
    let pairs = words.iter().filter(|word| word.contains('='));
    let mut found = variables(what, pairs, allowed);
    if let Some(reason) = words.iter().find_map(|word| value_reason(word)) {
        found.push(Suspicion {
            place: what.to_owned(),
            reason,
        });
    }
    found
}

fn pair_reason(name: &str, value: &str) -> Option<&'static str> {
    value_reason(value).or_else(|| {
        let harmless = value.is_empty() || value.starts_with('/') || HARMLESS.contains(&value);
        (!harmless && is_secret_name(name)).then_some("its name says so; let the program read it from a file")
    })
}

/// Whether a name's words are those of a secret: `DB_PASSWORD`, `api-key`, but not `TOKENIZERS_PARALLELISM`.
fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    if matches!(words.last(), Some(&("FILE" | "PATH" | "DIR"))) {
        return false;
    }
    words.iter().any(|word| SECRET_WORDS.contains(word))
        || words
            .windows(2)
            .any(|pair| pair.last() == Some(&"KEY") && pair.first().is_some_and(|w| KEY_KINDS.contains(w)))
}

fn value_reason(value: &str) -> Option<&'static str> {
    if value.contains("PRIVATE KEY-----") {
        return Some("it holds a private key");
    }
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    for (prefix, least, reason) in TOKEN_FORMS {
        if value
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.len() >= least && plain(rest))
        {
            return Some(reason);
        }
    }
    let authority = value
        .split_once("://")
        .map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    let user = authority
        .and_then(|authority| authority.rsplit_once('@'))
        .map(|(user, _)| user);
    if user
        .and_then(|user| user.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty())
    {
        return Some("it is an address with a password");
    }
    None
}

const SECRET_WORDS: [&str; 12] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "SECRETS",
    "TOKEN",
    "APIKEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "AUTHKEY",
    "PRIVATEKEY",
    "ACCESSKEY",
];
const KEY_KINDS: [&str; 8] = [
    "API",
    "ACCESS",
    "PRIVATE",
    "SECRET",
    "ENCRYPTION",
    "SIGNING",
    "AUTH",
    "ACCOUNT",
];
const HARMLESS: [&str; 8] = ["0", "1", "true", "false", "yes", "no", "none", "null"];
/// Prefix, least number of further characters, reason.
const TOKEN_FORMS: [(&str, usize, &str); 11] = [
    ("AKIA", 16, "it has the form of an AWS access key"),
    ("ghp_", 20, "it has the form of a GitHub token"),
    ("gho_", 20, "it has the form of a GitHub token"),
    ("github_pat_", 20, "it has the form of a GitHub token"),
    ("glpat-", 16, "it has the form of a GitLab token"),
    ("hf_", 20, "it has the form of a Hugging Face token"),
    ("sk-", 20, "it has the form of an API key"),
    ("xoxb-", 16, "it has the form of a Slack token"),
    ("xoxp-", 16, "it has the form of a Slack token"),
    ("AIza", 30, "it has the form of a Google API key"),
    ("eyJ", 40, "it has the form of a JSON web token"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn suspicious(pair: &str) -> bool {
        !variables("env", [&pair.to_owned()], &[]).is_empty()
    }

    #[test]
    fn t24_secrets_are_seen() {
        for pair in [
            "API_KEY=abc",
            "OPENAI_API_KEY=x",
            "DB_PASSWORD=hunter2",
            "db_passwd=x",
            "HF_TOKEN=x",
            "AWS_SECRET_ACCESS_KEY=x",
            "X=AKIAABCDEFGHIJKLMNOP",
            "X=ghp_abcdefghijklmnopqrstuvwxyz0123456789",
            "X=-----BEGIN EC PRIVATE KEY-----",
            "DATABASE_URL=postgres://user:pw@host/db",
            "X=eyJhbGciOiJFZERTQSJ9.eyJhdWQiOiJjZWxsYS1rYnMifQ.AAAA",
        ] {
            assert!(suspicious(pair), "{pair}");
        }
    }

    #[test]
    fn ordinary_variables_pass() {
        for pair in [
            "PATH=/usr/bin",
            "TOKENIZERS_PARALLELISM=false",
            "MAX_TOKENS=256",
            "API_KEY=",
            "API_KEY_FILE=/run/key",
            "SSL_KEY_PATH=/x",
            "KEYBOARD=us",
            "HF_TOKEN=/run/token",
            "USE_AUTH_TOKEN=0",
            "PROXY=http://proxy:3128/a@b:c",
            "HOME=/root",
            "LANG=C.UTF-8",
        ] {
            assert!(!suspicious(pair), "{pair}");
        }
        let pair = "API_KEY=abc".to_owned();
        assert!(
            variables("env", [&pair], &["API_KEY".to_owned()]).is_empty(),
            "the owner said that it is none"
        );
    }

    #[test]
    fn command_lines_and_history_are_read_too() {
        let args = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(arguments("args", &args(&["/x", "--api-key", "abc"]), &[]).len(), 1);
        assert_eq!(arguments("args", &args(&["/x", "--api-key=abc"]), &[]).len(), 1);
        assert_eq!(arguments("args", &args(&["/x", "--api-key-file", "/run/key"]), &[]), []);
        assert_eq!(arguments("args", &args(&["/x", "-m", "token"]), &[]), []);
        assert_eq!(text("history", "ENV API_KEY=abc", &[]).len(), 1);
        assert_eq!(text("history", "RUN /bin/sh -c make", &[]), []);
    }

    #[test]
    fn suspicions_never_show_the_value() {
        let pair = "API_KEY=canary-value".to_owned();
        let found = variables("env", [&pair], &[]);
        assert!(!format!("{found:?} {}", found[0]).contains("canary"));
    }
}
