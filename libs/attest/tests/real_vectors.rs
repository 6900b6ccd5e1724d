//! Reports that AMD's processors signed, verified under AMD's roots. Where they come from: `fetch-vectors.sh`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

mod vectors;

use cella_attest::{
    Anchors, CertRole, ChainError, Evidence, Expected, VekError, Verified, VerifyError, VerifyOptions,
    snp::{POLICY_DEBUG, Product, REPORT_LEN, Report, SIGNED_LEN},
    verify, verify_with,
};
use x509_cert::{
    Certificate,
    der::{DecodePem, Encode},
};

/// Certificates of a PEM file, in DER.
fn pem_chain(pem: &[u8]) -> Vec<Vec<u8>> {
    Certificate::load_pem_chain(pem)
        .unwrap()
        .iter()
        .map(|certificate| certificate.to_der().unwrap())
        .collect()
}

/// Milan, version 2, VMPL 0.
fn milan() -> Evidence {
    let report = hex::decode(vectors::read("milan.hex")).unwrap();
    let chain = [
        vec![vectors::read("milan-vcek.der")],
        pem_chain(&vectors::read("ask-ark-milan.pem")),
    ]
    .concat();
    Evidence { report, chain }
}

/// Google's, Milan, version 2, with the debug bit.
fn milan_debug() -> Evidence {
    let chain = [
        vec![vectors::read("milan-debug.der")],
        pem_chain(&vectors::read("ask-ark-milan.pem")),
    ]
    .concat();
    Evidence {
        report: vectors::read("milan-debug.bin"),
        chain,
    }
}

/// Genoa, version 2, VMPL 1. The project publishes it as the JSON of a parsed report: this puts its fields back in their places.
fn genoa() -> Evidence {
    let json: serde_json::Value = serde_json::from_slice(&vectors::read("genoa.json")).unwrap();
    let number = |value: &serde_json::Value, len: usize| value.as_u64().unwrap().to_le_bytes()[..len].to_vec();
    let bytes = |value: &serde_json::Value| -> Vec<u8> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
            .collect()
    };
    let tcb = |name: &str| {
        let tcb = &json[name];
        let level = |name: &str| number(&tcb[name], 1);
        [
            level("bootloader"),
            level("tee"),
            bytes(&tcb["_reserved"]),
            level("snp"),
            level("microcode"),
        ]
        .concat()
    };
    let firmware = |kind: &str| {
        let part = |name: &str| number(&json[format!("{kind}_{name}")], 1);
        [part("build"), part("minor"), part("major"), vec![0]].concat()
    };
    let report = [
        number(&json["version"], 4),
        number(&json["guest_svn"], 4),
        number(&json["policy"], 8),
        bytes(&json["family_id"]),
        bytes(&json["image_id"]),
        number(&json["vmpl"], 4),
        number(&json["sig_algo"], 4),
        tcb("current_tcb"),
        number(&json["plat_info"], 8),
        number(&json["_author_key_en"], 4),
        number(&json["_reserved_0"], 4),
        bytes(&json["report_data"]),
        bytes(&json["measurement"]),
        bytes(&json["host_data"]),
        bytes(&json["id_key_digest"]),
        bytes(&json["author_key_digest"]),
        bytes(&json["report_id"]),
        bytes(&json["report_id_ma"]),
        tcb("reported_tcb"),
        bytes(&json["_reserved_1"]),
        bytes(&json["chip_id"]),
        tcb("committed_tcb"),
        firmware("current"),
        firmware("committed"),
        tcb("launch_tcb"),
        bytes(&json["_reserved_4"]),
        bytes(&json["signature"]["r"]),
        bytes(&json["signature"]["s"]),
        bytes(&json["signature"]["_reserved"]),
    ]
    .concat();
    let vcek = vec![vectors::read("genoa-vcek.der")];
    Evidence {
        report,
        chain: [vcek, pem_chain(&vectors::read("ask-ark-genoa.pem"))].concat(),
    }
}

/// What such old reports need: version 2 and Milan are refused by default.
fn lenient() -> VerifyOptions {
    VerifyOptions::default().allow_milan(true).min_version(2)
}

/// Verifies, expecting of report_data and VMPL what the report says.
fn check(evidence: &Evidence, options: &VerifyOptions) -> Result<Verified, VerifyError> {
    let report = Report::parse(&evidence.report)?;
    let expected = Expected {
        report_data: &report.report_data,
        host_data: None,
        vmpl: report.vmpl,
    };
    verify_with(evidence, &Anchors::amd(), &expected, options)
}

#[test]
fn a_real_milan_report_verifies_under_amds_root() {
    let verified = check(&milan(), &lenient()).unwrap();
    assert_eq!(
        (verified.simulated, verified.product, verified.version),
        (false, Product::Milan, 2)
    );
    assert_eq!(verified.tcb.to_string(), "bootloader 3, tee 0, snp 8, microcode 115");
    assert_ne!(verified.measurement, [0; 48]);
}

#[test]
fn a_real_genoa_report_verifies_under_amds_root() {
    let verified = check(&genoa(), &lenient()).unwrap();
    assert_eq!((verified.simulated, verified.product), (false, Product::Genoa));
    assert_eq!(verified.report_data, [7; 64]);
    assert_eq!(verified.tcb.to_string(), "bootloader 7, tee 0, snp 11, microcode 62");
}

#[test]
fn amds_roots_are_the_compiled_anchors() {
    for product in ["milan", "genoa", "turin"] {
        let pem = vectors::read(&format!("ask-ark-{product}.pem"));
        let [_ask, ark] = pem_chain(&pem).try_into().unwrap();
        let evidence = Evidence {
            chain: vec![vec![0], vec![0], ark],
            ..milan()
        };
        // The root is believed: the refusal is of the certificate below it.
        let error = check(&evidence, &lenient()).unwrap_err();
        assert!(
            matches!(
                error,
                VerifyError::Chain(ChainError::Malformed {
                    role: CertRole::Intermediate,
                    ..
                })
            ),
            "{product}: {error:?}"
        );
    }
}

#[test]
fn a_real_turin_chain_verifies_and_signs_no_other_chips_report() {
    let chain = [
        vec![vectors::read("turin-vcek.der")],
        pem_chain(&vectors::read("ask-ark-turin.pem")),
    ]
    .concat();
    let error = check(&Evidence { chain, ..milan() }, &lenient()).unwrap_err();
    assert!(matches!(error, VerifyError::ReportSignature), "{error:?}");
}

#[test]
fn a_chips_certificate_alone_is_put_under_amds_own() {
    for whole in [milan(), genoa()] {
        let alone = Evidence {
            chain: whole.chain[..1].to_vec(),
            ..whole.clone()
        };
        assert_eq!(check(&alone, &lenient()).unwrap(), check(&whole, &lenient()).unwrap());
        let report = Report::parse(&alone.report).unwrap();
        let expected = Expected {
            report_data: &report.report_data,
            host_data: None,
            vmpl: report.vmpl,
        };
        let error = verify(&alone, &Anchors::none(), &expected).unwrap_err();
        assert!(
            matches!(error, VerifyError::Chain(ChainError::NotAnAnchor { .. })),
            "{error:?}"
        );
        let two = Evidence {
            chain: whole.chain[..2].to_vec(),
            ..whole
        };
        let error = check(&two, &lenient()).unwrap_err();
        assert!(
            matches!(error, VerifyError::Chain(ChainError::Length { found: 2, .. })),
            "{error:?}"
        );
    }
    // The name of an issuer is no more than a name: a certificate of another product's chip signs nothing here.
    let other = Evidence {
        chain: vec![vectors::read("turin-vcek.der")],
        ..milan()
    };
    let error = check(&other, &lenient()).unwrap_err();
    assert!(matches!(error, VerifyError::ReportSignature), "{error:?}");
}

#[test]
fn t20_milan_is_refused_by_default() {
    let error = check(&milan(), &VerifyOptions::default().min_version(2)).unwrap_err();
    assert!(matches!(error, VerifyError::MilanRefused), "{error:?}");
}

#[test]
fn version_2_is_refused_by_default() {
    for evidence in [milan(), genoa()] {
        let error = check(&evidence, &VerifyOptions::default().allow_milan(true)).unwrap_err();
        assert!(
            matches!(error, VerifyError::Version { found: 2, minimum: 3 }),
            "{error:?}"
        );
    }
}

#[test]
fn t22_a_real_report_with_the_debug_bit_is_refused() {
    let report = Report::parse(&milan_debug().report).unwrap();
    assert_ne!(report.policy & POLICY_DEBUG, 0);
    let error = check(&milan_debug(), &lenient()).unwrap_err();
    assert!(
        matches!(error, VerifyError::DebugAllowed { policy: 0xb0000 }),
        "{error:?}"
    );
}

#[test]
fn every_signed_byte_and_every_signature_byte_counts() {
    for (name, evidence) in [("milan", milan()), ("genoa", genoa())] {
        check(&evidence, &lenient()).unwrap();
        for at in 0..SIGNED_LEN + 2 * 72 {
            let mut changed = evidence.clone();
            changed.report[at] ^= 0x01;
            let result = check(&changed, &lenient());
            assert!(
                matches!(result, Err(VerifyError::ReportSignature | VerifyError::Report(_))),
                "{name}: byte {at:#x} changed: {result:?}"
            );
        }
    }
}

#[test]
fn bytes_behind_the_signature_must_be_zero() {
    for at in SIGNED_LEN + 2 * 72..REPORT_LEN {
        let mut changed = milan();
        changed.report[at] = 1;
        assert!(
            matches!(check(&changed, &lenient()), Err(VerifyError::Report(_))),
            "byte {at:#x}"
        );
    }
}

#[test]
fn t6_parts_of_different_machines_do_not_fit() {
    let (milan, google, genoa) = (milan(), milan_debug(), genoa());
    let foreign_vcek = Evidence {
        chain: google.chain.clone(),
        ..milan.clone()
    };
    assert!(matches!(
        check(&foreign_vcek, &lenient()),
        Err(VerifyError::ReportSignature)
    ));
    let other_product = Evidence {
        chain: genoa.chain.clone(),
        ..milan.clone()
    };
    assert!(matches!(
        check(&other_product, &lenient()),
        Err(VerifyError::ReportSignature)
    ));
    let mut other_ask = milan.clone();
    other_ask.chain[1] = genoa.chain[1].clone();
    let role = CertRole::Intermediate;
    let error = check(&other_ask, &lenient()).unwrap_err();
    assert!(
        matches!(error, VerifyError::Chain(ChainError::Issuer { role: r, .. }) if r == role),
        "{error:?}"
    );
    let mut asvk = milan.clone();
    asvk.chain[1] = pem_chain(&vectors::read("asvk-ark-milan.pem"))[0].clone();
    let error = check(&asvk, &lenient()).unwrap_err();
    let role = CertRole::Endorsement;
    assert!(
        matches!(error, VerifyError::Chain(ChainError::Issuer { role: r, .. }) if r == role),
        "{error:?}"
    );
}

#[test]
fn what_the_report_must_say_is_compared() {
    let evidence = milan();
    let report = Report::parse(&evidence.report).unwrap();
    let with = |expected: Expected<'_>| verify_with(&evidence, &Anchors::amd(), &expected, &lenient());
    let expected = Expected {
        report_data: &report.report_data,
        host_data: Some(&report.host_data),
        vmpl: 0,
    };
    assert!(with(expected).is_ok());
    let mut other = report.report_data;
    other[63] ^= 1;
    assert!(matches!(
        with(Expected {
            report_data: &other,
            ..expected
        }),
        Err(VerifyError::ReportData)
    ));
    assert!(matches!(
        with(Expected {
            host_data: Some(&[9; 32]),
            ..expected
        }),
        Err(VerifyError::HostData)
    ));
    assert!(matches!(
        with(Expected { vmpl: 1, ..expected }),
        Err(VerifyError::Vmpl { found: 0, expected: 1 })
    ));
    let floor = cella_attest::snp::TcbVersion {
        fmc: None,
        bootloader: 3,
        tee: 0,
        snp: 9,
        microcode: 115,
    };
    let error = check(&evidence, &lenient().minimum_tcb(floor)).unwrap_err();
    assert!(matches!(error, VerifyError::TcbTooOld { .. }), "{error:?}");
    assert!(verify(&evidence, &Anchors::none(), &expected).is_err());
}

#[test]
fn no_chain_is_no_evidence() {
    let evidence = Evidence {
        chain: Vec::new(),
        ..milan()
    };
    let error = check(&evidence, &lenient()).unwrap_err();
    assert!(
        matches!(error, VerifyError::Chain(ChainError::Length { found: 0, .. })),
        "{error:?}"
    );
    let error = VerifyError::Vek(VekError::ChipId);
    assert_eq!(error.class(), "endorsement key does not vouch for the report");
}

#[test]
fn pem_of_amds_root_is_no_simulated_root_by_itself() {
    let pem = String::from_utf8(vectors::read("ask-ark-genoa.pem")).unwrap();
    assert!(
        Anchors::none().with_simulated_pem(&pem).is_err(),
        "two certificates are not one root"
    );
    assert!(Anchors::none().with_simulated_pem("").is_err());
    assert!(Certificate::from_pem("").is_err());
}
