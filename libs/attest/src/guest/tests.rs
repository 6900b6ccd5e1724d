use super::*;

/// A report by a Genoa.
fn report() -> Vec<u8> {
    let mut report = vec![0; 1184];
    let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x00, &[3]); // version
    put(0x34, &[1]); // algorithm
    put(0x90, &[7; 48]); // measurement
    put(0xc0, &[8; 32]); // HOST_DATA
    put(0x180, &[3, 0, 0, 0, 0, 0, 20, 209]); // reported TCB
    put(0x188, &[0x19, 0x11, 1]); // processor
    report
}

/// The part of a quote, version 4, that no signature is in.
fn quote() -> Vec<u8> {
    let mut quote = vec![0; 632];
    let mut put = |at: usize, bytes: &[u8]| quote[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[4, 0, 2, 0, 0x81, 0, 0, 0]);
    put(12, &0x939a_7233_f79c_4ca9_940a_0db3_957f_0607_u128.to_be_bytes());
    put(48, &[5, 1, 2]); // TEE_TCB_SVN
    put(48 + 136, &[9; 48]); // MRTD
    put(48 + 184, &[10; 48]); // MRCONFIGID
    quote
}

fn snp() -> GuestEvidence {
    GuestEvidence::Snp(Evidence {
        report: report(),
        chain: vec![vec![1; 10]],
    })
}

fn tdx() -> GuestEvidence {
    GuestEvidence::Tdx(TdEvidence {
        quote: quote(),
        event_log: Some(b"log".to_vec()),
    })
}

#[test]
fn each_form_comes_back() {
    for evidence in [snp(), tdx()] {
        let json = evidence.to_json().unwrap();
        assert_eq!(GuestEvidence::from_json(&json).unwrap(), evidence);
    }
    assert_eq!((snp().tee().as_str(), tdx().tee().as_str()), ("snp", "tdx"));
}

#[test]
fn the_protocols_form_is_that_of_the_tee() {
    let keys = |evidence: &GuestEvidence| -> Vec<String> {
        let value = evidence.to_trustee().unwrap();
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&snp()), ["attestation_report", "cert_chain"]);
    assert_eq!(keys(&tdx()), ["cc_eventlog", "quote"]);
}

#[test]
fn what_is_neither_is_refused() {
    let long = vec![b' '; Evidence::MAX_JSON + 1];
    assert!(matches!(
        GuestEvidence::from_json(&long),
        Err(GuestEvidenceError::Snp(EvidenceError::TooLarge { .. }))
    ));
    for json in ["", "[]", "{}", "null", r#"{"report":"","cert_chain":[]}"#] {
        let read = GuestEvidence::from_json(json.as_bytes());
        assert!(matches!(read, Err(GuestEvidenceError::Snp(_))), "{json}: {read:?}");
    }
    for json in [r#"{"quote":""}"#, r#"{"quote":1}"#, r#"{"quote":"BA==","report":""}"#] {
        let read = GuestEvidence::from_json(json.as_bytes());
        assert!(matches!(read, Err(GuestEvidenceError::Tdx(_))), "{json}: {read:?}");
    }
    for evidence in [snp(), tdx()] {
        let json = evidence.to_json().unwrap();
        for len in 0..json.len() {
            assert!(
                GuestEvidence::from_json(&json[..len]).is_err(),
                "{len} bytes were taken"
            );
        }
    }
}

#[test]
fn the_launch_is_read_from_either() {
    let launched = Launched::of_evidence(&snp()).unwrap();
    assert_eq!((launched.tee(), launched.bound), (Tee::Snp, Bound::HostData([8; 32])));
    assert_eq!(launched.measurement, [7; 48]);
    assert_eq!(launched.tcb, "bootloader=3 tee=0 snp=20 microcode=209");
    let launched = Launched::of_evidence(&tdx()).unwrap();
    assert_eq!(
        (launched.tee(), launched.bound),
        (Tee::Tdx, Bound::MrConfigId([10; 48]))
    );
    assert_eq!(launched.measurement, td_launch_digest(&[9; 48], [&[0; 48]; 3]));
    assert_eq!(launched.tcb, "module=1 svn=5 microcode=2");
    assert_eq!(
        (launched.bound.field(), launched.bound.as_bytes()),
        ("MRCONFIGID", [10; 48].as_slice())
    );
}

#[test]
fn a_launch_that_cannot_be_read_says_why() {
    for len in 0..quote().len() {
        let cut = GuestEvidence::Tdx(TdEvidence {
            quote: quote()[..len].to_vec(),
            event_log: None,
        });
        assert!(
            matches!(Launched::of_evidence(&cut), Err(GuestEvidenceError::Quote(_))),
            "{len}"
        );
    }
    let empty = GuestEvidence::Snp(Evidence {
        report: Vec::new(),
        chain: Vec::new(),
    });
    assert!(matches!(
        Launched::of_evidence(&empty),
        Err(GuestEvidenceError::Report(_))
    ));
    // A processor that is not known has versions of an unknown layout.
    let mut unknown = report();
    unknown[0x188] = 0x55;
    let unknown = GuestEvidence::Snp(Evidence {
        report: unknown,
        chain: Vec::new(),
    });
    assert_eq!(Launched::of_evidence(&unknown).unwrap().tcb, "");
}
