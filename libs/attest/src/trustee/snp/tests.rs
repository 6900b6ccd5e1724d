//! The peer is the crate `sev`, whose serde form this is: what it writes is read here, and the other way round.

use serde_json::json;
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

use super::*;
use crate::trustee::is_trustee;
use crate::vectors;

/// Every byte that the form has a member for is set, and differs from its neighbours.
fn raw(version: u8, family: u8, model: u8) -> [u8; REPORT_LEN] {
    let mut raw = [0; REPORT_LEN];
    for (index, byte) in raw.iter_mut().enumerate() {
        *byte = u8::try_from(index % 251).unwrap() | 1;
    }
    let mut clear = |range: std::ops::Range<usize>| raw[range].fill(0);
    clear(0x4c..0x50);
    clear(0x188..0x1a0);
    clear(0x1eb..0x1ec);
    clear(0x1ef..0x1f0);
    clear(if version >= 5 { 0x208..0x2a0 } else { 0x1f8..0x2a0 });
    for scalar in [0x2a0, 0x2e8] {
        clear(scalar + 48..scalar + 72);
    }
    clear(0x330..0x4a0);
    let turin = (version >= 3 && family == 0x1a) || (version < 3 && model == 0x11);
    for tcb in [0x38, 0x180, 0x1e0, 0x1f0] {
        clear(if turin { tcb + 4..tcb + 7 } else { tcb + 2..tcb + 6 });
    }
    raw[0..4].copy_from_slice(&[version, 0, 0, 0]);
    raw[0x34..0x38].copy_from_slice(&[1, 0, 0, 0]);
    raw[0x48..0x4c].copy_from_slice(&[0; 4]);
    if version >= 3 {
        raw[0x188..0x18b].copy_from_slice(&[family, model, 1]);
    } else if turin {
        raw[0x1a8..0x1e0].fill(0);
    }
    raw
}

fn reports() -> Vec<[u8; REPORT_LEN]> {
    let mut reports = vec![raw(2, 0x19, 0x11 + 1), raw(2, 0x1a, 0x11)];
    for version in [3, 4, 5] {
        for (family, model) in [(0x19, 0x01), (0x19, 0x11), (0x19, 0xa0), (0x1a, 0x02)] {
            reports.push(raw(version, family, model));
        }
    }
    reports
}

fn evidence(report: &[u8]) -> Evidence {
    Evidence {
        report: report.to_vec(),
        chain: vec![vec![48, 1], vec![48, 2], vec![48, 3]],
    }
}

#[test]
fn the_form_is_that_of_the_crate_sev_byte_for_byte() {
    for raw in reports() {
        let theirs = AttestationReport::from_bytes(&raw).unwrap();
        let theirs = serde_json::to_string(&theirs).unwrap();
        let ours = serde_json::to_string(&WireReport::from_raw(&raw).unwrap()).unwrap();
        assert_eq!(ours, theirs, "version {}", raw[0]);
        // And they read ours.
        let back: AttestationReport = serde_json::from_str(&ours).unwrap();
        assert_eq!(back.to_bytes().unwrap().as_ref(), raw);
    }
}

#[test]
fn what_is_written_is_read_again() {
    for raw in reports() {
        let json = to_json(&evidence(&raw)).unwrap();
        assert!(is_trustee(&json));
        assert_eq!(from_json(json).unwrap(), evidence(&raw));
    }
    let none = Evidence {
        chain: Vec::new(),
        ..evidence(&raw(3, 0x19, 0x11))
    };
    let json = to_json(&none).unwrap();
    assert_eq!(json["cert_chain"], Value::Null);
    assert_eq!(from_json(json).unwrap(), none);
}

#[test]
fn a_real_report_goes_through_and_keeps_its_signature() {
    let report = hex::decode(vectors::read("milan.hex")).unwrap();
    let evidence = Evidence {
        report,
        chain: vec![vectors::read("milan-vcek.der")],
    };
    assert_eq!(from_json(to_json(&evidence).unwrap()).unwrap(), evidence);
}

#[test]
fn bytes_without_a_member_are_refused_not_dropped() {
    let good = raw(5, 0x19, 0x11);
    let reserved = [
        0x4c, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x208, 0x29f, 0x3a, 0x185, 0x1e2, 0x1f5,
    ];
    for at in reserved {
        let mut report = good;
        report[at] = 1;
        let refused = to_json(&evidence(&report));
        assert!(
            matches!(refused, Err(TrusteeError::NotRepresentable)),
            "byte {at:#x}: {refused:?}"
        );
    }
    let unknown = raw(3, 0x17, 0x11);
    assert!(matches!(to_json(&evidence(&unknown)), Err(TrusteeError::Processor)));
    assert!(matches!(to_json(&evidence(&[0; 10])), Err(TrusteeError::Report)));
}

#[test]
fn members_that_contradict_each_other_are_refused() {
    let json = to_json(&evidence(&raw(3, 0x19, 0x11))).unwrap();
    for (pointer, value) in [
        // A TCB in Turin's layout on Genoa, mitigations in version 3, a processor in version 2.
        ("/attestation_report/reported_tcb/fmc", json!(1)),
        ("/attestation_report/launch_mit_vector", json!(7)),
        ("/attestation_report/launch_mit_vector", json!(0)),
        ("/attestation_report/cpuid_fam_id", Value::Null),
        ("/attestation_report/version", json!(2)),
    ] {
        let mut changed = json.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let refused = from_json(changed);
        assert!(
            matches!(
                refused,
                Err(TrusteeError::NotTheSame | TrusteeError::NotRepresentable | TrusteeError::Processor)
            ),
            "{pointer}: {refused:?}"
        );
    }
}

#[test]
fn every_member_is_needed_and_no_other_is_known() {
    let json = to_json(&evidence(&raw(5, 0x1a, 0x02))).unwrap();
    let report = json["attestation_report"].as_object().unwrap();
    // The three that may be null may be absent, as in serde's own reading.
    let optional = [
        "cpuid_fam_id",
        "cpuid_mod_id",
        "cpuid_step",
        "launch_mit_vector",
        "current_mit_vector",
    ];
    for name in report.keys() {
        let mut changed = json.clone();
        changed["attestation_report"].as_object_mut().unwrap().remove(name);
        let refused = from_json(changed);
        assert!(refused.is_err(), "{name}");
        if !optional.contains(&name.as_str()) {
            assert!(matches!(refused, Err(TrusteeError::Json { .. })), "{name}: {refused:?}");
        }
    }
    for (pointer, value) in [
        ("/attestation_report/extra", json!(1)),
        ("/attestation_report/policy", json!("1")),
        ("/attestation_report/vmpl", json!(-1)),
        ("/attestation_report/report_data", json!(vec![0; 63])),
        ("/attestation_report/report_data", json!(vec![0; 65])),
        ("/attestation_report/report_data", json!(vec![256; 64])),
        ("/attestation_report/signature", json!(null)),
        ("/extra", json!(1)),
        ("/cert_chain", json!({})),
        ("/cert_chain", json!([{"cert_type": "VCEK"}])),
    ] {
        let mut changed = json.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[name] = value;
        let refused = from_json(changed);
        assert!(
            matches!(refused, Err(TrusteeError::Json { .. })),
            "{pointer}: {refused:?}"
        );
    }
}

#[test]
fn each_byte_that_the_signature_covers_matters() {
    let raw = raw(5, 0x19, 0x11);
    let json = to_json(&evidence(&raw)).unwrap();
    let text = json["attestation_report"].to_string();
    // Any number in the text made another: refused, or another report. Never the same one.
    for (at, digit) in text.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
        let other = if digit == '1' { "2" } else { "1" };
        let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        let Ok(report) = serde_json::from_str::<Value>(&changed) else {
            continue;
        };
        if let Ok(read) = from_json(json!({"attestation_report": report, "cert_chain": null})) {
            assert_ne!(read.report, raw, "character {at}");
        }
    }
}

#[test]
fn certificates_are_sorted_out_of_a_hosts_table() {
    let report = to_json(&evidence(&raw(3, 0x19, 0x11))).unwrap()["attestation_report"].clone();
    let entry = |kind: Value, data: &[u8]| json!({"cert_type": kind, "data": data});
    let read = |entries: Vec<Value>| from_json(json!({"attestation_report": report, "cert_chain": entries}));
    let table = vec![
        entry(json!("Empty"), &[]),
        entry(json!("ARK"), &[3]),
        entry(json!({"OTHER": "00000000-0000-0000-0000-000000000000"}), &[9; 9]),
        entry(json!("CRL"), &[8; 5000]),
        entry(json!("ASK"), &[2]),
        entry(json!("VCEK"), &[1]),
    ];
    assert_eq!(read(table).unwrap().chain, [[1], [2], [3]]);
    let pem = String::from_utf8(vectors::read("ask-ark-milan.pem")).unwrap();
    let first = &pem[..pem.find("-----END CERTIFICATE-----").unwrap() + "-----END CERTIFICATE-----".len()];
    let chain = read(vec![entry(json!("VLEK"), first.as_bytes())]).unwrap().chain;
    assert_eq!((chain.len(), chain[0][0]), (1, 48));
    for bad in [
        vec![],
        vec![0; MAX_CERT + 1],
        b"-----BEGIN CERTIFICATE-----\n!".to_vec(),
    ] {
        let refused = read(vec![entry(json!("VCEK"), &bad)]);
        assert!(
            matches!(refused, Err(TrusteeError::Certificate { index: 0 })),
            "{refused:?}"
        );
    }
    let many = vec![entry(json!("Empty"), &[]); MAX_ENTRIES + 1];
    assert!(matches!(read(many), Err(TrusteeError::Certificates { found: 17 })));
}
