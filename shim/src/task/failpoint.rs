//! Failures on demand, for test suites: feature `failpoints`, never in a release.
//!
//! Annotation `io.containerd.runtime.v2.shim.failpoint.<Method>` of the pod, in containerd's grammar
//! (`internal/failpoint` of containerd, after FreeBSD's fail(9)): terms `<count>*<type>[(argument)]`, joined by `->`; the first
//! term whose count is not used up acts. Types: `off`, `error(text)`, `panic(text)`, which ends the shim, `delay(milliseconds)`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use slog::{Logger, error, warn};

use super::error::TaskError;

/// What every such annotation begins with.
const PREFIX: &str = "io.containerd.runtime.v2.shim.failpoint.";
/// Exit status of a shim that was told to panic; Go's.
const PANIC: i32 = 2;

/// A pod's failpoints, by method.
#[derive(Debug, Default)]
pub struct Failpoints(BTreeMap<String, Mutex<Vec<Term>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    left: u64,
    action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Off,
    Error(String),
    Panic(String),
    Delay(Duration),
}

impl Failpoints {
    /// Those of a pod's annotations. One that cannot be understood fails every call of its method, saying so.
    pub fn of_annotations(annotations: &BTreeMap<String, String>, log: &Logger) -> Self {
        let mut all = BTreeMap::new();
        for (key, text) in annotations {
            let Some(method) = key.strip_prefix(PREFIX) else {
                continue;
            };
            warn!(log, "a failpoint is set"; "method" => method, "terms" => text);
            let terms = parse(text).unwrap_or_else(|| {
                let message = format!("failpoint {method} is {text:?}, which is not in containerd's grammar");
                vec![Term {
                    left: u64::MAX,
                    action: Action::Error(message),
                }]
            });
            all.insert(method.to_owned(), Mutex::new(terms));
        }
        Self(all)
    }

    /// Does what the method's failpoint says.
    ///
    /// # Errors
    /// What `error(…)` says.
    pub async fn evaluate(&self, method: &str, log: &Logger) -> Result<(), TaskError> {
        let Some(terms) = self.0.get(method) else { return Ok(()) };
        let action = next(&mut terms.lock().unwrap_or_else(PoisonError::into_inner));
        match action {
            None | Some(Action::Off) => Ok(()),
            Some(Action::Error(message)) => Err(TaskError::Failpoint { message }),
            Some(Action::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Some(Action::Panic(text)) => {
                error!(log, "a failpoint ends the shim"; "method" => method, "text" => text);
                std::process::exit(PANIC);
            }
        }
    }
}

fn next(terms: &mut [Term]) -> Option<Action> {
    let term = terms.iter_mut().find(|term| term.left > 0)?;
    term.left -= 1;
    Some(term.action.clone())
}

fn parse(text: &str) -> Option<Vec<Term>> {
    let mut terms = Vec::new();
    let mut rest = text;
    loop {
        let (term, after) = parse_term(rest)?;
        terms.push(term);
        if after.is_empty() {
            return Some(terms);
        }
        rest = after.strip_prefix("->")?;
    }
}

fn parse_term(text: &str) -> Option<(Term, &str)> {
    let (count, rest) = text.split_once('*')?;
    let left = number(count)?;
    if let Some(after) = rest.strip_prefix("off") {
        let action = Action::Off;
        return Some((Term { left, action }, after));
    }
    let (kind, rest) = rest.split_once('(')?;
    let (argument, after) = rest.split_once(')')?;
    let action = match kind {
        "error" if !argument.is_empty() => Action::Error(argument.to_owned()),
        "panic" if !argument.is_empty() => Action::Panic(argument.to_owned()),
        "delay" => Action::Delay(Duration::from_millis(number(argument)?)),
        _ => return None,
    };
    Some((Term { left, action }, after))
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use slog::o;

    use super::*;

    fn log() -> Logger {
        Logger::root(slog::Discard, o!())
    }

    fn points(text: &str) -> Failpoints {
        let annotations = [
            (format!("{PREFIX}Create"), text.to_owned()),
            ("other".to_owned(), "x".to_owned()),
        ];
        Failpoints::of_annotations(&annotations.into(), &log())
    }

    async fn said(points: &Failpoints) -> Option<String> {
        points
            .evaluate("Create", &log())
            .await
            .err()
            .map(|error| error.message())
    }

    #[tokio::test]
    async fn terms_are_used_up_in_turn() {
        let points = points("1*off->2*error(oops)->1*delay(1)->1*error(last)");
        let expected = [None, Some("oops"), Some("oops"), None, Some("last"), None, None];
        for (turn, expected) in expected.into_iter().enumerate() {
            assert_eq!(said(&points).await.as_deref(), expected, "turn {turn}");
        }
        assert!(points.evaluate("Start", &log()).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_not_in_the_grammar_says_so_each_time() {
        for bad in [
            "",
            "error(x)",
            "1*error()",
            "1*boom(x)",
            "1*off,1*off",
            "1*off->",
            "-1*off",
            "1*delay(x)",
            "1*panic(x",
        ] {
            let points = points(bad);
            for _ in 0..2 {
                let message = said(&points).await.unwrap();
                assert!(message.contains("not in containerd's grammar"), "{bad}: {message}");
            }
        }
    }

    #[test]
    fn a_panic_is_understood() {
        let terms = parse("1*panic(boom)->5*off").unwrap();
        assert_eq!(terms[0].action, Action::Panic("boom".into()));
        assert_eq!((terms[1].left, &terms[1].action), (5, &Action::Off));
    }
}
