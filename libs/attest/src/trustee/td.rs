//! TDX evidence: quote and event log, each in base64, standard and padded. Without an event log its member is `null` or absent.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TrusteeError;
use crate::evidence::{MAX_EVENT_LOG, MAX_QUOTE, TdEvidence, decode, encode};

/// In errors.
const FORM: &str = "{cc_eventlog, quote}";

/// Writes TDX evidence in Trustee's form.
///
/// # Errors
/// [`TrusteeError::Quote`] or [`TrusteeError::EventLog`] when one of them is empty or longer than is ever read.
pub fn td_to_json(evidence: &TdEvidence) -> Result<Value, TrusteeError> {
    let TdEvidence { quote, event_log } = evidence;
    let fits = |bytes: &[u8], max| (1..=max).contains(&bytes.len());
    if !fits(quote, MAX_QUOTE) {
        return Err(TrusteeError::Quote);
    }
    if event_log.as_ref().is_some_and(|log| !fits(log, MAX_EVENT_LOG)) {
        return Err(TrusteeError::EventLog);
    }
    let wire = Wire {
        cc_eventlog: event_log.as_deref().map(encode),
        quote: encode(quote),
    };
    serde_json::to_value(&wire).map_err(|source| TrusteeError::Json { form: FORM, source })
}

/// Reads TDX evidence in Trustee's form. Pure; linear in the length of the text that the value came from.
///
/// # Errors
/// [`TrusteeError`]; never a panic.
pub fn td_from_json(json: Value) -> Result<TdEvidence, TrusteeError> {
    let Wire { cc_eventlog, quote } =
        serde_json::from_value(json).map_err(|source| TrusteeError::Json { form: FORM, source })?;
    let bounded = |text: &str, max| decode(text, max).filter(|bytes| !bytes.is_empty());
    let quote = bounded(&quote, MAX_QUOTE).ok_or(TrusteeError::Quote)?;
    let event_log = cc_eventlog
        .map(|text| bounded(&text, MAX_EVENT_LOG).ok_or(TrusteeError::EventLog))
        .transpose()?;
    Ok(TdEvidence { quote, event_log })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default)]
    cc_eventlog: Option<String>,
    quote: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evidence() -> TdEvidence {
        TdEvidence {
            quote: vec![4, 0, 2, 0, 0x81],
            event_log: Some(b"log".to_vec()),
        }
    }

    #[test]
    fn the_form_is_trustees() {
        let json = td_to_json(&evidence()).unwrap();
        assert_eq!(json, json!({"cc_eventlog": "bG9n", "quote": "BAACAIE="}));
        assert_eq!(td_from_json(json).unwrap(), evidence());
        let none = TdEvidence {
            event_log: None,
            ..evidence()
        };
        let json = td_to_json(&none).unwrap();
        assert_eq!(json["cc_eventlog"], Value::Null);
        assert_eq!(td_from_json(json).unwrap(), none);
        assert_eq!(td_from_json(json!({"quote": "BAACAIE="})).unwrap(), none);
    }

    #[test]
    fn the_longest_is_taken_and_nothing_longer() {
        let longest = TdEvidence {
            quote: vec![1; MAX_QUOTE],
            event_log: Some(vec![2; MAX_EVENT_LOG]),
        };
        assert_eq!(td_from_json(td_to_json(&longest).unwrap()).unwrap(), longest);
        for (quote, log) in [(0, 1), (MAX_QUOTE + 1, 1)] {
            let evidence = TdEvidence {
                quote: vec![1; quote],
                event_log: Some(vec![1; log]),
            };
            let written = td_to_json(&evidence);
            assert!(matches!(written, Err(TrusteeError::Quote)), "{quote}");
            let read = td_from_json(json!({"quote": encode(&evidence.quote)}));
            assert!(matches!(read, Err(TrusteeError::Quote)), "{quote}");
        }
        for log in [0, MAX_EVENT_LOG + 1] {
            let evidence = TdEvidence {
                event_log: Some(vec![1; log]),
                ..evidence()
            };
            assert!(matches!(td_to_json(&evidence), Err(TrusteeError::EventLog)), "{log}");
            let read = td_from_json(json!({"quote": "BA==", "cc_eventlog": encode(&vec![1; log])}));
            assert!(matches!(read, Err(TrusteeError::EventLog)), "{log}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for other in [
            json!(null),
            json!([]),
            json!({}),
            json!({"quote": null}),
            json!({"quote": [4, 0]}),
            json!({"cc_eventlog": "bG9n"}),
            json!({"quote": "BA==", "cc_eventlog": 1}),
            json!({"quote": "BA==", "aa_eventlog": null}),
            json!({"attestation_report": {}, "cert_chain": null}),
        ] {
            let read = td_from_json(other.clone());
            assert!(matches!(read, Err(TrusteeError::Json { .. })), "{other}: {read:?}");
        }
        // Without padding, of the other alphabet, with a blank, with bits that no byte needs.
        for text in ["BA", "__8=", "BA== ", " BA==", "BB==", "!"] {
            let read = td_from_json(json!({"quote": text}));
            assert!(matches!(read, Err(TrusteeError::Quote)), "{text}: {read:?}");
            let read = td_from_json(json!({"quote": "BA==", "cc_eventlog": text}));
            assert!(matches!(read, Err(TrusteeError::EventLog)), "{text}: {read:?}");
        }
    }

    #[test]
    fn one_bit_flipped_is_an_error_or_other_evidence() {
        let text = td_to_json(&evidence()).unwrap().to_string().into_bytes();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone();
                flipped[at] ^= 1 << bit;
                let Ok(json) = serde_json::from_slice(&flipped) else {
                    continue;
                };
                if let Ok(read) = td_from_json(json) {
                    assert_ne!(read, evidence(), "byte {at} bit {bit} does not matter");
                }
            }
            assert!(serde_json::from_slice::<Value>(&text[..at]).is_err(), "cut at {at}");
        }
    }
}
