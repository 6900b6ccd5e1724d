//! Quotes that Intel's quoting enclaves signed, verified under Intel's root with Intel's collateral of their time. Where they come from:
//! `fetch-vectors.sh`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

mod vectors;

use std::time::Duration;

use cella_attest::{
    CertRole, ChainError, CrlError, CrlRole,
    tdx::{
        ATTRIBUTE_PKS, ATTRIBUTE_SEPT_VE_DISABLE, Collateral, Quote, QuoteError, Roots, SignedError, TcbStatus,
        TdxError, TdxEvidence, TdxExpected, TdxOptions, VerifiedTd, verify,
    },
};

/// A quote with collateral of its time.
#[derive(Clone)]
struct Vector {
    name: &'static str,
    quote: Vec<u8>,
    collateral: Collateral,
    now: Duration,
    options: TdxOptions,
}

impl Vector {
    fn of_dcap(name: &'static str, now: u64) -> Self {
        Self {
            name,
            quote: vectors::read(&format!("{name}.bin")),
            collateral: Collateral::from_json(&vectors::read(&format!("{name}.json"))).unwrap(),
            now: Duration::from_secs(now),
            options: TdxOptions::default(),
        }
    }

    /// Version 4, TDX 1.0.
    fn v4() -> Self {
        Self::of_dcap("tdx-v4", 1_750_400_000) // 2025-06-20
    }

    /// Version 5, TDX 1.5, of a platform that is behind.
    fn v5() -> Self {
        let vector = Self::of_dcap("tdx-v5-15", 1_771_500_000); // 2026-02-19
        let attributes = vector.report().attributes;
        let mut vector = vector;
        vector.options = TdxOptions::default().attributes(attributes, 0);
        vector
    }

    /// Version 5, TDX 1.5 with the fields of service TDs.
    fn v5_ex() -> Self {
        Self::of_dcap("tdx-v5-15ex", 1_791_500_000) // 2026-10-09
    }

    /// Google's of 2023, version 4, with the answers of Intel's service as they came.
    fn google() -> Self {
        let mut quote = vectors::read("tdx-google.bin");
        // The project appends a sentence, to test that its parser stops before it.
        let end = quote.len() - b"extra byte(s(only for testing purpose)\n".len();
        quote.truncate(end);
        let source = String::from_utf8(vectors::read("tdx-google.chains")).unwrap();
        let chain = |name: &str| {
            let (_, rest) = source.split_once(&format!("var {name} = []string{{")).unwrap();
            let text = rest.split('"').nth(1).unwrap();
            percent_decode(text)
        };
        let (tcb, qe) = (vectors::read("tdx-google.tcb"), vectors::read("tdx-google.qe"));
        let collateral = Collateral::from_pcs(
            vectors::read("tdx-google.root"),
            vectors::read("tdx-google.crl"),
            (&tcb, chain("tcbInfoIssuerChain")),
            (&qe, chain("qeIdentityIssuerChain")),
        );
        Self {
            name: "tdx-google",
            quote,
            collateral: collateral.unwrap(),
            now: Duration::from_secs(1_688_200_000), // 2023-07-01
            // An early guest, without the attribute that hides page faults.
            options: TdxOptions::default().attributes(ATTRIBUTE_PKS, 0),
        }
    }

    fn all() -> Vec<Self> {
        vec![Self::v4(), Self::v5(), Self::v5_ex(), Self::google()]
    }

    fn report(&self) -> cella_attest::tdx::TdReport {
        Quote::parse(&self.quote).unwrap().report
    }

    /// Verifies, expecting what the quote says, and accepting the platform's state whatever it is.
    fn check(&self) -> Result<VerifiedTd, TdxError> {
        let report = Quote::parse(&self.quote)?.report;
        let expected = TdxExpected {
            report_data: &report.report_data,
            mr_config_id: None,
        };
        self.check_with(&expected, &self.options)
    }

    fn check_with(&self, expected: &TdxExpected<'_>, options: &TdxOptions) -> Result<VerifiedTd, TdxError> {
        let evidence = TdxEvidence {
            quote: &self.quote,
            event_log: None,
        };
        verify(
            &evidence,
            &self.collateral,
            &Roots::intel(),
            expected,
            options,
            self.now,
        )
    }
}

fn percent_decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        out.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
        out.push_str(&part[2..]);
    }
    out
}

#[test]
fn a_real_version_4_quote_verifies_under_intels_root() {
    let verified = Vector::v4().check().unwrap();
    assert_eq!(
        (verified.simulated, verified.version, verified.replayed),
        (false, 4, false)
    );
    assert_eq!(
        (verified.status, verified.advisories.as_slice()),
        (TcbStatus::UpToDate, &[][..])
    );
    assert_eq!(
        (verified.evaluation, verified.attributes),
        (17, ATTRIBUTE_SEPT_VE_DISABLE)
    );
    assert!(hex::encode(verified.mrtd).starts_with("91eb2b44d141d4ece09f0c75c2c53d24"));
    assert!(hex::encode(verified.rtmr[1]).starts_with("0084452c01668329d4bc06acdf58a720"));
    assert_eq!((verified.rtmr[3], verified.mr_config_id), ([0; 48], [0; 48]));
    assert_eq!(verified.platform.fmspc, [0xb0, 0xc0, 0x6f, 0, 0, 0]);
    assert_eq!(
        verified.platform.cpu_svn,
        [3, 3, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!((verified.platform.pce_svn, verified.platform.dynamic), (11, Some(true)));
    assert_eq!(
        verified.tcb_date,
        Duration::from_secs(1_710_288_000),
        "2024-03-13, of the oldest level"
    );
}

#[test]
fn a_real_version_5_quote_verifies_under_intels_root() {
    let verified = Vector::v5_ex().check().unwrap();
    assert_eq!(
        (verified.simulated, verified.version, verified.status),
        (false, 5, TcbStatus::UpToDate)
    );
    assert_eq!(
        (verified.evaluation, verified.tee_tcb_svn[..3].to_vec()),
        (20, vec![15, 1, 4])
    );
    assert!(hex::encode(verified.mr_config_id).starts_with("0151ed70bddb5f12574176b37e3f53bb"));
    assert!(hex::encode(verified.rtmr[3]).starts_with("556d4986cae57e7e3756b6471e4951be"));
}

/// Every signature of these two is right; what Intel then said of their platforms is that they were below every level it listed.
#[test]
fn t23_real_quotes_of_old_platforms_are_refused_for_that_alone() {
    for vector in [Vector::v5(), Vector::google()] {
        let error = vector.check().unwrap_err();
        assert!(
            matches!(error, TdxError::NoTcbLevel { what: "platform" }),
            "{}: {error:?}",
            vector.name
        );
    }
    assert_eq!(
        Quote::parse(&Vector::v5().quote).unwrap().report.tee_tcb_svn2.unwrap()[..3],
        [13, 1, 3]
    );
}

#[test]
fn every_byte_of_a_quote_counts() {
    for vector in Vector::all() {
        let as_it_is = vector.check().map(|_| ()).map_err(|error| error.to_string());
        // All bytes up to the certificates, and a sample of their text, which tests of certificates have whole.
        let text = vector.quote.windows(5).position(|bytes| bytes == b"-----").unwrap();
        for at in (0..text).chain((text..vector.quote.len()).step_by(7)) {
            let mut changed = vector.clone();
            changed.quote[at] ^= 0x01;
            let result = changed.check().map(|_| ()).map_err(|error| error.to_string());
            assert!(result.is_err(), "{}: byte {at} changed", vector.name);
            assert_ne!(
                result, as_it_is,
                "{}: byte {at} changed, and nothing noticed before the TCB",
                vector.name
            );
        }
    }
}

#[test]
fn cut_off_quotes_are_refused() {
    let vector = Vector::v4();
    let end = vector.quote.iter().rposition(|byte| *byte != 0).unwrap();
    for len in 0..=end {
        let error = Quote::parse(&vector.quote[..len]).unwrap_err();
        assert_eq!(error, QuoteError::Truncated, "{len} bytes");
    }
    let mut long = vector.quote;
    long.extend([0; 20_000]);
    assert!(matches!(Quote::parse(&long), Err(QuoteError::TooLarge { .. })));
    let google = vectors::read("tdx-google.bin");
    assert_eq!(Quote::parse(&google).unwrap_err(), QuoteError::Trailing);
}

#[test]
fn every_byte_of_the_collateral_counts() {
    let vector = Vector::v4();
    type Part = fn(&mut Collateral) -> &mut [u8];
    let bytes: [(&str, Part); 4] = [
        ("root CRL", |c| &mut c.root_crl),
        ("PCK CRL", |c| &mut c.pck_crl),
        ("TCB info signature", |c| &mut c.tcb_info_signature),
        ("identity signature", |c| &mut c.qe_identity_signature),
    ];
    for (name, part) in bytes {
        for at in 0..part(&mut vector.collateral.clone()).len() {
            let mut changed = vector.clone();
            part(&mut changed.collateral)[at] ^= 0x01;
            assert!(changed.check().is_err(), "{name}: byte {at} changed");
        }
    }
    type Text = fn(&mut Collateral) -> &mut String;
    let texts: [(&str, Text); 4] = [
        ("TCB info", |c| &mut c.tcb_info),
        ("identity", |c| &mut c.qe_identity),
        ("TCB info chain", |c| &mut c.tcb_info_chain),
        ("identity chain", |c| &mut c.qe_identity_chain),
    ];
    for (name, text) in texts {
        for at in (0..text(&mut vector.collateral.clone()).len()).step_by(3) {
            let mut changed = vector.clone();
            let mut bytes = text(&mut changed.collateral).clone().into_bytes();
            bytes[at] ^= 0x01;
            let as_blank = name.ends_with("chain") && bytes[at].is_ascii_whitespace();
            *text(&mut changed.collateral) = String::from_utf8(bytes).unwrap();
            // Between certificates a blank is as good as a newline; what is signed has none to spare.
            assert!(as_blank || changed.check().is_err(), "{name}: byte {at} changed");
        }
    }
}

#[test]
fn t23_signed_documents_are_the_text_that_was_signed() {
    let mut vector = Vector::v4();
    let value: serde_json::Value = serde_json::from_str(&vector.collateral.tcb_info).unwrap();
    vector.collateral.tcb_info = serde_json::to_string_pretty(&value).unwrap();
    let error = vector.check().unwrap_err();
    let signature = TdxError::Signed(SignedError::Signature { what: "TCB info" });
    assert_eq!(error.to_string(), signature.to_string());
    assert!(
        matches!(error, TdxError::Signed(SignedError::Signature { what: "TCB info" })),
        "{error:?}"
    );
}

#[test]
fn t23_collateral_holds_for_its_time_only() {
    let at = |now: u64| {
        let now = Duration::from_secs(now);
        Vector { now, ..Vector::v4() }.check()
    };
    // From the identity's issue (10:32:27 on 2025-06-19) to the end of TCB info (10:16:03 on 2025-07-19; the list of platforms ends earlier).
    assert!(at(1_750_329_147).is_ok());
    let early = at(1_750_329_146).unwrap_err();
    let what = "quoting enclave's identity";
    assert!(
        matches!(early, TdxError::Signed(SignedError::NotYetValid { what: w }) if w == what),
        "{early:?}"
    );
    assert!(at(1_752_919_235).is_ok(), "2025-07-19 10:00:35");
    let late = at(1_752_919_236).unwrap_err();
    assert!(
        matches!(late, TdxError::Crl(CrlError::Expired { role: CrlRole::Pck })),
        "{late:?}"
    );
    let far = at(4_000_000_000).unwrap_err();
    assert!(matches!(far, TdxError::Chain(ChainError::Expired { .. })), "{far:?}");
    let past = at(1_000_000_000).unwrap_err();
    assert!(
        matches!(past, TdxError::Chain(ChainError::NotYetValid { .. })),
        "{past:?}"
    );
    // A list of today does not make up for documents of yesterday.
    let mut mixed = Vector::v4();
    mixed.collateral.root_crl = Vector::v5_ex().collateral.root_crl;
    let error = mixed.check().unwrap_err();
    let role = CrlRole::SgxRoot;
    assert!(
        matches!(error, TdxError::Crl(CrlError::NotYetValid { role: r }) if r == role),
        "{error:?}"
    );
}

#[test]
fn the_root_must_be_known() {
    let vector = Vector::v4();
    let report = vector.report();
    let expected = TdxExpected {
        report_data: &report.report_data,
        mr_config_id: None,
    };
    let evidence = TdxEvidence {
        quote: &vector.quote,
        event_log: None,
    };
    for roots in [Roots::none(), Roots::none().with_simulated([1; 32])] {
        let options = TdxOptions::default();
        let error = verify(&evidence, &vector.collateral, &roots, &expected, &options, vector.now).unwrap_err();
        let role = CertRole::SgxRoot;
        assert!(
            matches!(error, TdxError::Chain(ChainError::NotAnAnchor { role: r, .. }) if r == role),
            "{error:?}"
        );
        assert_eq!(error.class(), "root not trusted");
    }
}

#[test]
fn an_sgx_quote_is_no_guests() {
    let sgx = vectors::read("sgx.bin");
    assert_eq!(Quote::parse(&sgx).unwrap_err(), QuoteError::Version { found: 3 });
    let mut tagged = Vector::v4().quote;
    tagged[4] = 0;
    assert_eq!(Quote::parse(&tagged).unwrap_err(), QuoteError::NotTdx { tee: 0 });
    let mut p384 = Vector::v4().quote;
    p384[2] = 3;
    assert_eq!(Quote::parse(&p384).unwrap_err(), QuoteError::KeyType { found: 3 });
}

#[test]
fn what_the_quote_must_say_is_compared() {
    let vector = Vector::v5_ex();
    let report = vector.report();
    let expected = TdxExpected {
        report_data: &report.report_data,
        mr_config_id: Some(&report.mr_config_id),
    };
    let options = TdxOptions::default();
    assert!(vector.check_with(&expected, &options).is_ok());
    for at in [0, 63] {
        let mut other = report.report_data;
        other[at] ^= 1;
        let report_data = &other;
        let error = vector
            .check_with(
                &TdxExpected {
                    report_data,
                    ..expected
                },
                &options,
            )
            .unwrap_err();
        assert!(matches!(error, TdxError::ReportData), "{error:?}");
    }
    for at in [0, 47] {
        let mut other = report.mr_config_id;
        other[at] ^= 1;
        let mr_config_id = Some(&other);
        let error = vector
            .check_with(
                &TdxExpected {
                    mr_config_id,
                    ..expected
                },
                &options,
            )
            .unwrap_err();
        assert!(matches!(error, TdxError::MrConfigId), "{error:?}");
    }
}

#[test]
fn policy_refuses_what_it_does_not_name() {
    let vector = Vector::v4();
    let report = vector.report();
    let expected = TdxExpected {
        report_data: &report.report_data,
        mr_config_id: None,
    };
    let check = |options: TdxOptions| vector.check_with(&expected, &options);
    let default = TdxOptions::default;
    assert!(check(default().minimum_evaluation(17)).is_ok());
    let error = check(default().minimum_evaluation(18)).unwrap_err();
    assert!(
        matches!(error, TdxError::EvaluationNumber { found: 17, minimum: 18 }),
        "{error:?}"
    );
    let mut svn = report.tee_tcb_svn;
    assert!(check(default().minimum_tee_tcb_svn(svn)).is_ok());
    svn[2] += 1;
    let error = check(default().minimum_tee_tcb_svn(svn)).unwrap_err();
    assert!(matches!(error, TdxError::TcbTooOld { .. }), "{error:?}");
    let own = vector.check().unwrap().platform.instance_id.unwrap();
    assert!(check(default().platforms(vec![own])).is_ok());
    for list in [vec![], vec![[0; 16]]] {
        let error = check(default().platforms(list)).unwrap_err();
        assert!(matches!(error, TdxError::PlatformNotAllowed), "{error:?}");
    }
    for (options, expected) in [
        (default().configuration(false, true, true), "dynamic platform"),
        (default().configuration(true, false, true), "cached keys"),
        (default().configuration(true, true, false), "SMT"),
    ] {
        let error = check(options).unwrap_err();
        assert!(
            matches!(error, TdxError::Configuration { what } if what == expected),
            "{error:?}"
        );
    }
    let error = check(default().attributes(0, 0)).unwrap_err();
    let own = ATTRIBUTE_SEPT_VE_DISABLE;
    assert!(
        matches!(error, TdxError::AttributesForbidden { bits, .. } if bits == own),
        "{error:?}"
    );
    let error = check(default().attributes(own | ATTRIBUTE_PKS, own | ATTRIBUTE_PKS)).unwrap_err();
    assert!(
        matches!(
            error,
            TdxError::AttributesRequired {
                bits: ATTRIBUTE_PKS,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn an_event_log_of_another_boot_does_not_replay() {
    let vector = Vector::v4();
    let report = vector.report();
    let expected = TdxExpected {
        report_data: &report.report_data,
        mr_config_id: None,
    };
    let log = vectors::read("ccel-cos.bin");
    let evidence = |event_log| TdxEvidence {
        quote: &vector.quote,
        event_log,
    };
    let check = |log| {
        let options = TdxOptions::default();
        verify(
            &evidence(Some(log)),
            &vector.collateral,
            &Roots::intel(),
            &expected,
            &options,
            vector.now,
        )
    };
    assert!(matches!(check(&log), Err(TdxError::Replay { index: 0 })));
    assert!(matches!(check(&[]), Err(TdxError::EventLog(_))));
}
