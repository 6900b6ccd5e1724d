use std::time::{SystemTime, UNIX_EPOCH};

use cella_attest::sim::{Authority, TdAuthority, TdJudgement};

use super::*;

/// A configuration in a folder, with these lines before its tables.
fn config(folder: &Path, lines: &str, tables: &str) -> Config {
    let text = format!(
        r#"
        listen = "127.0.0.1:0"
        state-dir = "state"
        storage-key = "storage.key"
        admin-keys = ["admin.pub"]
        {lines}
        [tls]
        certificate = "server.pem"
        key = "server.key"
        {tables}
        "#
    );
    Config::parse(&text, folder).unwrap()
}

/// What comes of the lines when `files` are there.
fn loaded(files: &[(&str, &[u8])], lines: &str, tables: &str) -> Result<Trust, TrustError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }
    Trust::load(&config(folder.path(), lines, tables))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn collateral() -> Vec<u8> {
    let authority = TdAuthority::generate().unwrap();
    authority.collateral(&TdJudgement::up_to_date(now())).unwrap().to_json()
}

const SIGNER: &str = r#"reference-signers = ["signer.pub"]"#;
const CRL: &str = "[snp]\ncrls = [\"amd.crl\"]";
const COLLATERAL: &str = "[tdx]\ncollateral = \"tdx\"";

#[test]
fn everything_is_read() {
    let crl = Authority::generate().unwrap().crl(false, now()).unwrap();
    let signer = crate::testing::AdminKey::new().public_pem();
    let collateral = collateral();
    let files: [(&str, &[u8]); 5] = [
        ("amd.crl", &crl),
        ("signer.pub", signer.as_bytes()),
        ("tdx/b.json", &collateral),
        ("tdx/a.json", &collateral),
        ("tdx/README", b"not collateral"),
    ];
    let tables = format!("{CRL}\nrequire-crl = true\n{COLLATERAL}\ncollateral-max-age-hours = 2");
    let trust = loaded(&files, SIGNER, &tables).unwrap();
    assert_eq!((trust.signers.len(), trust.collateral.len()), (1, 2));
    assert_eq!((&trust.snp.crls, trust.snp.require_crl), (&vec![crl], true));
    assert_eq!(trust.tdx.max_collateral_age, Some(Duration::from_secs(7200)));
    assert!(trust.tdx.any_status);
    assert_eq!(trust.collateral.of(Some(TdAuthority::FMSPC)).count(), 2);
    assert_eq!(trust.collateral.of(Some([0; 6])).count(), 0);
    assert_eq!(trust.collateral.of(None).count(), 0);
    // A file stands for itself.
    let file = loaded(&[("tdx", &collateral)], "", COLLATERAL).unwrap();
    assert_eq!(file.collateral.len(), 1);
    let none = loaded(&[], "", "").unwrap();
    assert!(none.collateral.is_empty() && none.signers.is_empty() && none.snp.crls.is_empty());
}

#[test]
fn each_bad_file_is_named() {
    let refused = |files: &[(&str, &[u8])], lines, tables| loaded(files, lines, tables).map(drop).unwrap_err();
    let root = "[tdx]\nsimulated-root = \"root.pem\"";
    let no_file = "no such file";
    for (lines, tables) in [(SIGNER, ""), ("", CRL), ("", COLLATERAL), ("", root)] {
        let error = refused(&[], lines, tables);
        assert!(
            matches!(error, TrustError::File(FileError::Read { .. })),
            "{no_file}: {error:?}"
        );
    }
    let error = refused(&[("amd.crl", b"-----BEGIN X509 CRL-----")], "", CRL);
    assert!(
        matches!(&error, TrustError::Crl { path, .. } if path.ends_with("amd.crl")),
        "{error:?}"
    );
    let error = refused(&[("signer.pub", b"ssh-ed25519 AAAA")], SIGNER, "");
    assert!(matches!(error, TrustError::Signer { .. }), "{error:?}");
    let error = refused(&[("root.pem", b"x")], "", root);
    assert!(matches!(error, TrustError::Root { .. }), "{error:?}");
    let good = collateral();
    let error = refused(&[("tdx/a.json", &good), ("tdx/b.json", b"{}")], "", COLLATERAL);
    assert!(
        matches!(&error, TrustError::Collateral { path, .. } if path.ends_with("b.json")),
        "{error:?}"
    );
    let error = refused(&[("tdx/a.txt", &good)], "", COLLATERAL);
    assert!(matches!(error, TrustError::NoCollateral { .. }), "{error:?}");
    let names: Vec<_> = (0..=MAX_FILES).map(|n| format!("tdx/{n}.json")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"{}".as_slice())).collect();
    let error = refused(&many, "", COLLATERAL);
    assert!(matches!(error, TrustError::TooManyFiles { .. }), "{error:?}");
    let long = vec![b' '; Collateral::MAX_JSON + 1];
    let error = refused(&[("tdx", &long)], "", COLLATERAL);
    assert!(
        matches!(error, TrustError::File(FileError::TooLarge { .. })),
        "{error:?}"
    );
}

use cella_attest::tdx::Collateral;
