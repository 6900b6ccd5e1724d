//! What a verifier can demand of SNP evidence, each demand alone: reports of every version, product and key, of which few are published.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cella_attest::{
    Anchors, CertRole, ChainError, CrlError, Expected, VekError, Verified, VerifyError, VerifyOptions,
    sim::{Authority, ChipSpec, Claims},
    snp::{
        Cpuid, Mitigations, PLATFORM_ALIAS_CHECK, PLATFORM_SMT, POLICY_RESERVED_ONE, POLICY_SINGLE_SOCKET, POLICY_SMT,
        Product, SigningKey, TcbVersion,
    },
    verify_with,
};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::generate().unwrap());

const CHALLENGE: [u8; 64] = [5; 64];
const TURIN: Cpuid = Cpuid {
    family: 0x1a,
    model: 0x02,
    stepping: 1,
};

fn claims() -> Claims {
    Claims::new(CHALLENGE, [6; 48], [7; 32])
}

fn turin() -> ChipSpec {
    let genoa = ChipSpec::random();
    let mut chip_id = genoa.chip_id;
    chip_id[8..].fill(0);
    ChipSpec {
        chip_id,
        product: Product::Turin,
        tcb: TcbVersion {
            fmc: Some(1),
            bootloader: 1,
            tee: 1,
            snp: 4,
            microcode: 0x51,
        },
        ..genoa
    }
}

fn vlek() -> ChipSpec {
    ChipSpec {
        signing_key: SigningKey::Vlek,
        ..ChipSpec::random()
    }
}

fn check(spec: &ChipSpec, claims: &Claims, options: &VerifyOptions) -> Result<Verified, VerifyError> {
    let evidence = AUTHORITY.chip(spec).unwrap().issue(claims).unwrap();
    let anchors = Anchors::amd().with_simulated_of(AUTHORITY.ark_spki_sha256(), spec.product);
    let expected = Expected {
        report_data: &CHALLENGE,
        host_data: Some(&[7; 32]),
        vmpl: 0,
    };
    verify_with(&evidence, &anchors, &expected, options)
}

fn options() -> VerifyOptions {
    VerifyOptions::default()
}

fn now() -> Duration {
    LazyLock::force(&AUTHORITY);
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(60)
}

#[test]
fn reports_of_versions_3_to_5_of_each_product_and_key() {
    for version in 3..=5 {
        for (spec, cpuid) in [
            (ChipSpec::random(), claims().cpuid),
            (turin(), TURIN),
            (vlek(), claims().cpuid),
        ] {
            let claims = Claims {
                version,
                cpuid,
                ..claims()
            };
            let verified = check(&spec, &claims, &options()).unwrap();
            assert_eq!((verified.version, verified.product), (version, spec.product));
            assert_eq!((verified.tcb, verified.launch_tcb), (spec.tcb, spec.tcb));
            assert_eq!(verified.signing_key, spec.signing_key);
            assert_eq!(verified.mitigations.is_some(), version == 5);
        }
    }
    let old = Claims { version: 2, ..claims() };
    assert!(check(&ChipSpec::random(), &old, &options().min_version(2)).is_ok());
    for version in [1, 6] {
        let claims = Claims { version, ..claims() };
        let error = check(&ChipSpec::random(), &claims, &options().min_version(0)).unwrap_err();
        assert!(matches!(error, VerifyError::Report(_)), "{error:?}");
    }
}

#[test]
fn t23_each_component_has_a_floor_now_and_at_launch() {
    let spec = turin();
    let own = spec.tcb;
    let genoas = claims();
    let claims = Claims { cpuid: TURIN, ..genoas };
    assert!(check(&spec, &claims, &options().minimum_tcb(own)).is_ok());
    let floors = [
        TcbVersion { fmc: Some(2), ..own },
        TcbVersion { bootloader: 2, ..own },
        TcbVersion { tee: 2, ..own },
        TcbVersion { snp: 5, ..own },
        TcbVersion { microcode: 0x52, ..own },
    ];
    for floor in floors {
        let error = check(&spec, &claims, &options().minimum_tcb(floor)).unwrap_err();
        assert!(
            matches!(error, VerifyError::TcbTooOld { which: "reported", .. }),
            "{floor}: {error:?}"
        );
    }
    let below = [
        TcbVersion { fmc: Some(0), ..own },
        TcbVersion { bootloader: 0, ..own },
        TcbVersion { tee: 0, ..own },
        TcbVersion { snp: 3, ..own },
        TcbVersion { microcode: 0x50, ..own },
    ];
    for launch in below {
        let claims = Claims {
            launch_tcb: Some(launch),
            ..claims
        };
        let error = check(&spec, &claims, &options().minimum_tcb(own)).unwrap_err();
        assert!(
            matches!(error, VerifyError::TcbTooOld { which: "launch", .. }),
            "{launch}: {error:?}"
        );
        assert!(
            check(&spec, &claims, &options()).is_ok(),
            "without a floor it is not looked at"
        );
    }
    let fmc = TcbVersion {
        fmc: Some(0),
        ..ChipSpec::random().tcb
    };
    let genoa = check(&ChipSpec::random(), &genoas, &options().minimum_tcb(fmc));
    assert!(
        matches!(genoa, Err(VerifyError::TcbTooOld { .. })),
        "a Genoa has no FMC: {genoa:?}"
    );
}

#[test]
fn policy_bits_one_by_one() {
    let spec = ChipSpec::random();
    let with = |policy: u64, options: &VerifyOptions| check(&spec, &Claims { policy, ..claims() }, options);
    let one = POLICY_RESERVED_ONE;
    let error = with(one | POLICY_SMT, &options().policy(POLICY_SMT, 0)).unwrap_err();
    assert!(
        matches!(error, VerifyError::PolicyForbidden { bits: POLICY_SMT, .. }),
        "{error:?}"
    );
    assert!(with(one, &options().policy(POLICY_SMT, 0)).is_ok());
    let single = options().policy(0, POLICY_SINGLE_SOCKET);
    let error = with(one, &single).unwrap_err();
    assert!(
        matches!(
            error,
            VerifyError::PolicyRequired {
                bits: POLICY_SINGLE_SOCKET,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(with(one | POLICY_SINGLE_SOCKET, &single).is_ok());
    let error = with(POLICY_SMT, &options()).unwrap_err();
    assert!(
        matches!(
            error,
            VerifyError::PolicyRequired {
                bits: POLICY_RESERVED_ONE,
                ..
            }
        ),
        "{error:?}"
    );
    let abi = options().minimum_abi(1, 55);
    for (policy, good) in [
        (one | 0x0137, true),
        (one | 0x0200, true),
        (one | 0x0136, false),
        (one | 0x00ff, false),
    ] {
        let result = with(policy, &abi);
        assert_eq!(result.is_ok(), good, "{policy:#x}");
        assert!(good || matches!(result, Err(VerifyError::PolicyAbi { .. })));
    }
}

#[test]
fn t20_platform_settings_and_mitigations() {
    let spec = ChipSpec::random();
    let demand = options().required_platform(PLATFORM_ALIAS_CHECK);
    let error = check(&spec, &claims(), &demand).unwrap_err();
    assert!(
        matches!(
            error,
            VerifyError::Platform {
                bits: PLATFORM_ALIAS_CHECK,
                ..
            }
        ),
        "{error:?}"
    );
    let checked = Claims {
        platform_info: PLATFORM_SMT | PLATFORM_ALIAS_CHECK,
        ..claims()
    };
    assert!(check(&spec, &checked, &demand).is_ok());
    let demand = options().required_mitigations(0b11);
    for (version, launch, current, lacking) in [(4, 3, 3, 3), (5, 3, 1, 2), (5, 1, 3, 2), (5, 7, 3, 0)] {
        let claims = Claims {
            version,
            mitigations: Mitigations { launch, current },
            ..claims()
        };
        match check(&spec, &claims, &demand) {
            Ok(_) => assert_eq!(lacking, 0),
            Err(error) => assert!(
                matches!(error, VerifyError::Mitigations { bits } if bits == lacking),
                "{error:?}"
            ),
        }
    }
}

#[test]
fn t20_chips_on_the_list_and_providers_keys() {
    let spec = ChipSpec::random();
    assert!(check(&spec, &claims(), &options().chip_ids(vec![[1; 64], spec.chip_id])).is_ok());
    for list in [vec![], vec![[1; 64]]] {
        let error = check(&spec, &claims(), &options().chip_ids(list)).unwrap_err();
        assert!(matches!(error, VerifyError::ChipNotAllowed), "{error:?}");
    }
    let error = check(&vlek(), &claims(), &options().chip_ids(vec![spec.chip_id])).unwrap_err();
    assert!(
        matches!(error, VerifyError::ChipNotAllowed),
        "a provider's key names no chip: {error:?}"
    );
    let error = check(&vlek(), &claims(), &options().allow_vlek(false)).unwrap_err();
    assert!(matches!(error, VerifyError::VlekRefused), "{error:?}");
    let masked = Claims {
        chip_id: Some([0; 64]),
        ..claims()
    };
    let error = check(&spec, &masked, &options()).unwrap_err();
    assert!(matches!(error, VerifyError::Vek(VekError::ChipId)), "{error:?}");
}

#[test]
fn t10_certificates_are_valid_for_a_time() {
    let spec = ChipSpec::random();
    assert!(check(&spec, &claims(), &options().at(now())).is_ok());
    let error = check(&spec, &claims(), &options().at(Duration::from_secs(1_600_000_000))).unwrap_err();
    assert!(
        matches!(error, VerifyError::Chain(ChainError::NotYetValid { .. })),
        "{error:?}"
    );
    let years = Duration::from_secs(30 * 365 * 24 * 3600);
    let error = check(&spec, &claims(), &options().at(now() + years)).unwrap_err();
    assert!(
        matches!(error, VerifyError::Chain(ChainError::Expired { .. })),
        "{error:?}"
    );
    assert_eq!(error.class(), "certificate not valid now");
}

#[test]
fn t20_revocation_lists() {
    let spec = ChipSpec::random();
    let (issued, now) = (now(), now());
    let good = AUTHORITY.crl(false, issued).unwrap();
    let bad = AUTHORITY.crl(true, issued).unwrap();
    let other = Authority::generate().unwrap().crl(true, issued).unwrap();
    let with = |crls: Vec<Vec<u8>>, at: Duration| check(&spec, &claims(), &options().at(at).crls(crls, true));
    assert!(with(vec![good.clone()], now).is_ok());
    let error = with(vec![], now).unwrap_err();
    assert!(matches!(error, VerifyError::Crl(CrlError::Missing { .. })), "{error:?}");
    for crls in [vec![bad.clone()], vec![good.clone(), bad.clone()]] {
        let error = with(crls, now).unwrap_err();
        let role = CertRole::Intermediate;
        assert!(
            matches!(error, VerifyError::Chain(ChainError::Revoked { role: r }) if r == role),
            "{error:?}"
        );
    }
    // The simulator's roots have one name: another's list is a forgery here, not another product's.
    let error = with(vec![other], now).unwrap_err();
    assert!(
        matches!(error, VerifyError::Crl(CrlError::Signature { .. })),
        "{error:?}"
    );
    let error = with(vec![good.clone()], now + Duration::from_secs(7200)).unwrap_err();
    assert!(matches!(error, VerifyError::Crl(CrlError::Expired { .. })), "{error:?}");
    let error = with(vec![good.clone()], now - Duration::from_secs(30)).unwrap_err();
    assert!(
        matches!(error, VerifyError::Crl(CrlError::NotYetValid { .. })),
        "{error:?}"
    );
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(with(vec![changed], now).is_err(), "byte {at}");
    }
    for len in 0..good.len() {
        assert!(with(vec![good[..len].to_vec()], now).is_err(), "cut to {len}");
    }
}
