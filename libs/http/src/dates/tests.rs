use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::crypto::ring;

use super::*;

const YEAR: u64 = 31_557_600;

fn at(year: u64) -> Duration {
    Duration::from_secs((year - 1970) * YEAR)
}

fn valid(params: &mut CertificateParams, from: i32, to: i32) {
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
}

fn certificate(of: &CertifiedIssuer<'static, KeyPair>) -> CertificateDer<'static> {
    AsRef::<Certificate>::as_ref(of).der().clone()
}

/// A root, and what it signed.
struct Pki {
    judge: Judge,
    time: TrustedTime,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

fn pki() -> Pki {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    valid(&mut params, 2024, 2030);
    let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&root)).unwrap();
    let provider = Arc::new(ring::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let time = TrustedTime::unknown();
    Pki {
        judge: Judge::new(inner, time.clone()),
        time,
        issuer,
    }
}

impl Pki {
    /// A leaf that is valid from the beginning of one year to that of another.
    fn leaf(&self, from: i32, to: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["broker".to_owned()]).unwrap();
        valid(&mut params, from, to);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().clone()
    }

    fn handshake(&self, leaf: &CertificateDer<'_>, name: &str) -> Result<(), Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let intermediates = [certificate(&self.issuer)];
        // What the system's clock says has no meaning.
        for system in [
            UnixTime::since_unix_epoch(at(1980)),
            UnixTime::since_unix_epoch(at(2080)),
        ] {
            self.judge
                .verify_server_cert(leaf, &intermediates, &name, &[], system)?;
        }
        Ok(())
    }
}

fn is_expired(result: &Result<(), Error>) -> bool {
    matches!(
        result,
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. }))
    )
}

fn is_early(result: &Result<(), Error>) -> bool {
    matches!(
        result,
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { .. }))
    )
}

#[test]
fn t10_before_the_time_is_known_all_but_the_dates_is_judged() {
    let pki = pki();
    for (from, to) in [(2025, 2026), (2020, 2025), (2029, 2040)] {
        pki.handshake(&pki.leaf(from, to), "broker").unwrap();
    }
    let leaf = pki.leaf(2025, 2026);
    assert!(matches!(
        pki.handshake(&leaf, "other"),
        Err(Error::InvalidCertificate(
            CertificateError::NotValidForNameContext { .. }
        ))
    ));
    let stranger = self::pki();
    assert!(matches!(
        pki.handshake(&stranger.leaf(2025, 2026), "broker"),
        Err(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature
        ))
    ));
    // No moment at which leaf and intermediate are both valid.
    assert!(is_expired(&pki.handshake(&pki.leaf(2020, 2023), "broker")));
    assert!(pki.handshake(&pki.leaf(2031, 2040), "broker").is_err());
    pki.judge.judge().unwrap();
}

#[test]
fn t10_what_was_on_probation_is_judged_by_the_time_when_it_is_known() {
    for (from, to, year, good) in [
        (2025, 2027, 2026, true),
        (2025, 2026, 2027, false),
        (2028, 2029, 2026, false),
    ] {
        let pki = pki();
        let leaf = pki.leaf(from, to);
        pki.handshake(&leaf, "broker").unwrap();
        pki.time.learn(at(year));
        for _ in 0..2 {
            assert_eq!(pki.judge.judge().is_ok(), good, "{from} to {to} in {year}");
        }
        assert_eq!(pki.handshake(&leaf, "broker").is_ok(), good);
    }
}

#[test]
fn t10_once_it_is_known_the_time_decides_at_the_handshake() {
    let pki = pki();
    pki.time.learn(at(2026) + Duration::from_secs(YEAR / 2));
    pki.handshake(&pki.leaf(2026, 2027), "broker").unwrap();
    assert!(is_expired(&pki.handshake(&pki.leaf(2025, 2026), "broker")));
    assert!(is_early(&pki.handshake(&pki.leaf(2027, 2028), "broker")));
    assert!(pki.judge.probation.lock().unwrap().is_empty());
    // Past the end of the intermediate.
    pki.time.learn(at(2031));
    assert!(is_expired(&pki.handshake(&pki.leaf(2026, 2040), "broker")));
}

#[test]
fn probation_is_bounded() {
    let pki = pki();
    let leaf = pki.leaf(2025, 2026);
    for _ in 0..20 {
        pki.handshake(&leaf, "broker").unwrap();
    }
    for _ in 1..MAX_PROBATION {
        pki.handshake(&pki.leaf(2025, 2026), "broker").unwrap();
    }
    assert!(matches!(
        pki.handshake(&pki.leaf(2025, 2026), "broker"),
        Err(Error::General(_))
    ));
    pki.handshake(&leaf, "broker").unwrap();
}
