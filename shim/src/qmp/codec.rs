//! QMP lines: pure parser and printer.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::untrusted::{MAX_MESSAGE, printable};

/// Longest line, in bytes. The greeting has about 200, the longest answer that we ask for fewer.
pub const MAX_LINE: usize = 16 * 1024;

/// One message of QEMU's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first line.
    Greeting {
        /// "10.0.2", for the log.
        version: String,
    },
    /// A command succeeded.
    Return {
        /// Which command; 0 where QEMU named none.
        id: u64,
        /// `status` of `query-status`, else empty.
        status: String,
    },
    /// A command failed.
    Error {
        /// Which command; 0 where QEMU named none.
        id: u64,
        /// QEMU's text, made printable.
        text: String,
    },
    /// Something happened.
    Event(Event),
    /// A message that means nothing to us.
    Other,
}

/// Events that the shim acts upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The VM is going down.
    Shutdown {
        /// The guest wanted it.
        guest: bool,
        /// QEMU's word: "guest-shutdown", "guest-reset", "guest-panic", "host-qmp-quit", …
        reason: String,
    },
    /// The VM was reset; with `-no-reboot` a `Shutdown` follows.
    Reset,
    /// The VM stopped running without being told to, as after an I/O error.
    Stop,
}

/// A line that is not QMP.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// No newline in sight.
    #[error("a line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// Not a JSON object.
    #[error("a line is not a JSON object")]
    Json {
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<WireError>,
    event: Option<String>,
    data: Option<Value>,
    id: Option<Value>,
}

#[derive(Deserialize)]
struct WireError {
    #[serde(default)]
    desc: String,
}

/// Parses one line without its newline.
///
/// # Errors
/// The line is too long or no JSON object. The connection is of no use then.
pub fn parse(line: &[u8]) -> Result<Message, LineError> {
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong);
    }
    let wire: Wire = serde_json::from_slice(line).map_err(|source| LineError::Json { source })?;
    let id = wire.id.as_ref().and_then(Value::as_u64).unwrap_or(0);
    Ok(if let Some(greeting) = wire.greeting {
        Message::Greeting {
            version: version(&greeting),
        }
    } else if let Some(error) = wire.error {
        Message::Error {
            id,
            text: printable(&error.desc, MAX_MESSAGE),
        }
    } else if let Some(event) = wire.event {
        event_of(&event, wire.data.as_ref()).map_or(Message::Other, Message::Event)
    } else if let Some(answer) = wire.answer {
        Message::Return {
            id,
            status: text_at(&answer, "/status"),
        }
    } else {
        Message::Other
    })
}

/// A command as a line with its newline.
pub fn command(name: &str, id: u64) -> String {
    format!("{}\n", json!({ "execute": name, "id": id }))
}

fn event_of(name: &str, data: Option<&Value>) -> Option<Event> {
    let data = data.unwrap_or(&Value::Null);
    match name {
        "SHUTDOWN" => Some(Event::Shutdown {
            guest: data.pointer("/guest").and_then(Value::as_bool).unwrap_or(false),
            reason: text_at(data, "/reason"),
        }),
        "RESET" => Some(Event::Reset),
        "STOP" => Some(Event::Stop),
        _ => None,
    }
}

fn version(greeting: &Value) -> String {
    let part = |name: &str| {
        let value = greeting
            .pointer(&format!("/version/qemu/{name}"))
            .and_then(Value::as_u64);
        value.map_or_else(|| "?".to_owned(), |number| number.to_string())
    };
    format!("{}.{}.{}", part("major"), part("minor"), part("micro"))
}

fn text_at(value: &Value, pointer: &str) -> String {
    printable(value.pointer(pointer).and_then(Value::as_str).unwrap_or_default(), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "x"}, "capabilities": ["oob"]}}"#;

    #[test]
    fn messages_of_a_session() {
        assert_eq!(
            parse(GREETING.as_bytes()).unwrap(),
            Message::Greeting {
                version: "10.0.2".into()
            }
        );
        let returned = parse(br#"{"return": {"status": "running", "running": true}, "id": 7}"#).unwrap();
        assert_eq!(
            returned,
            Message::Return {
                id: 7,
                status: "running".into()
            }
        );
        let failed = parse(br#"{"id": 8, "error": {"class": "CommandNotFound", "desc": "no\nsuch"}}"#).unwrap();
        assert_eq!(
            failed,
            Message::Error {
                id: 8,
                text: "no?such".into()
            }
        );
        let event =
            parse(br#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#)
                .unwrap();
        assert_eq!(
            event,
            Message::Event(Event::Shutdown {
                guest: true,
                reason: "guest-reset".into()
            })
        );
        assert_eq!(
            parse(br#"{"event": "RESET", "data": {}}"#).unwrap(),
            Message::Event(Event::Reset)
        );
        assert_eq!(parse(br#"{"event": "NIC_RX_FILTER_CHANGED"}"#).unwrap(), Message::Other);
        assert_eq!(parse(b"{}").unwrap(), Message::Other);
    }

    #[test]
    fn commands_are_one_line() {
        assert_eq!(command("quit", 3), "{\"execute\":\"quit\",\"id\":3}\n");
    }

    #[test]
    fn odd_shapes_are_harmless() {
        for odd in [
            r#"{"QMP": 3}"#,
            r#"{"event": "SHUTDOWN"}"#,
            r#"{"event":"SHUTDOWN","data":[1]}"#,
            r#"{"return": null, "id": -1}"#,
        ] {
            assert!(parse(odd.as_bytes()).is_ok(), "{odd}");
        }
    }

    #[test]
    fn long_deep_and_broken_lines_are_errors() {
        assert!(matches!(parse(&vec![b' '; MAX_LINE + 1]), Err(LineError::TooLong)));
        let deep = format!("{{\"return\": {}1{}}}", "[".repeat(4000), "]".repeat(4000));
        assert!(matches!(parse(deep.as_bytes()), Err(LineError::Json { .. })));
        for cut in 0..GREETING.len() {
            assert!(
                matches!(parse(&GREETING.as_bytes()[..cut]), Err(LineError::Json { .. })),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_never_panics() {
        for at in 0..GREETING.len() {
            for bit in 0..8 {
                let mut line = GREETING.as_bytes().to_vec();
                line[at] ^= 1 << bit;
                let _ = parse(&line);
            }
        }
    }
}
