//! The canonical JSON of a value (RFC 8785), for what records are made of: objects, lists, texts, booleans, and whole numbers that
//! every reader has exactly.

use serde::Serialize;
use serde_json::Value;

/// The canonical text of `value`.
///
/// # Errors
/// [`CanonicalError`] for what has no such text here.
pub(crate) fn text(value: &impl Serialize) -> Result<String, CanonicalError> {
    let value = serde_json::to_value(value).map_err(|_| CanonicalError::NotJson)?;
    let mut out = String::new();
    write(&value, &mut out)?;
    Ok(out)
}

/// A value has no canonical text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CanonicalError {
    /// It cannot be written as JSON at all.
    #[error("the value has no JSON form")]
    NotJson,
    /// Not every reader of JSON would have the same number.
    #[error("a number is negative, no whole one, or above 2^53 - 1")]
    Number,
}

fn write(value: &Value, out: &mut String) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => {
            let number = number.as_u64().filter(|number| *number <= MAX_NUMBER);
            out.push_str(&number.ok_or(CanonicalError::Number)?.to_string());
        }
        Value::String(text) => string(text, out)?,
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            // By UTF-16 code units, as the RFC has it. The map's own order depends on features of other crates.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(one, _), (two, _)| one.encode_utf16().cmp(two.encode_utf16()));
            out.push('{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                string(name, out)?;
                out.push(':');
                write(value, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// serde_json escapes exactly what the RFC does, in the same way.
fn string(text: &str, out: &mut String) -> Result<(), CanonicalError> {
    out.push_str(&serde_json::to_string(text).map_err(|_| CanonicalError::NotJson)?);
    Ok(())
}

/// Largest number that is exact as IEEE 754 double.
const MAX_NUMBER: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_sorted_and_nothing_is_left_to_taste() {
        let value = json!({"b": [1, true, null], "a": {"z": "x\n\"\u{1f}\u{e9}\\", "y": {}}, "\u{20ac}": 0, "\u{1f600}": 0, "\u{fb33}": 9007199254740991_u64});
        assert_eq!(
            text(&value).unwrap(),
            "{\"a\":{\"y\":{},\"z\":\"x\\n\\\"\\u001f\u{e9}\\\\\"},\"b\":[1,true,null],\"\u{20ac}\":0,\"\u{1f600}\":0,\"\u{fb33}\":9007199254740991}"
        );
    }

    #[test]
    fn numbers_that_readers_differ_on_are_refused() {
        for bad in [json!(-1), json!(0.5), json!(1.0), json!(1_u64 << 53), json!([u64::MAX])] {
            assert_eq!(text(&bad), Err(CanonicalError::Number), "{bad}");
        }
    }
}
