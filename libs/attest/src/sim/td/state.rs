//! A simulated TDX platform in a folder: its keys, its root for those who shall believe it, and its collateral.
//!
//! ```text
//! DIR/root.pem         what a broker's configuration names as the root
//! DIR/collateral.json  what it names as the collateral; replaced when half of its term is over
//! DIR/NAME.key, .pem   the other keys and certificates
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Key, TdAuthority, TdJudgement};
use crate::{
    sim::{
        SimError,
        chip::{file, read, write},
    },
    tdx::Collateral,
};

/// Names of the keys' files, in the order of [`TdAuthority::keys`].
const NAMES: [&str; 5] = ["root", "pck-ca", "pck", "tcb-signing", "attestation"];
const COLLATERAL: &str = "collateral.json";
/// How long collateral of a kept platform holds: as Intel's.
const TERM: Duration = Duration::from_secs(30 * 24 * 3600);
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// What others read of a platform's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdPaths {
    /// The root certificate, PEM.
    pub root: PathBuf,
    /// The collateral, JSON.
    pub collateral: PathBuf,
}

impl TdPaths {
    /// In a folder that [`TdAuthority::save`] wrote.
    pub fn of(dir: &Path) -> Self {
        Self {
            root: dir.join("root.pem"),
            collateral: dir.join(COLLATERAL),
        }
    }
}

impl TdAuthority {
    /// Writes the platform to a folder that does not exist or is empty, its files readable by their owner only, with collateral from `now` on. The
    /// folder appears whole or not at all.
    ///
    /// # Errors
    /// [`SimError::File`], with `AlreadyExists` or `DirectoryNotEmpty` as the cause when the folder holds something.
    pub fn save(&self, dir: &Path, now: Duration) -> Result<(), SimError> {
        crate::sim::chip::appear(dir, |staging| {
            for (name, key) in NAMES.iter().zip(self.keys()) {
                let private = STANDARD.encode(key.pkcs8());
                let private = format!("{BEGIN}\n{private}\n{END}\n");
                write(&staging.join(format!("{name}.key")), private.as_bytes())?;
                write(&staging.join(format!("{name}.pem")), key.pem()?.as_bytes())?;
            }
            write(&staging.join(COLLATERAL), &self.current(now)?.to_json())
        })
    }

    /// Reads a platform back, and checks that each key and its certificate belong together.
    ///
    /// # Errors
    /// [`SimError::File`] or [`SimError::State`], both with the file.
    pub fn load(dir: &Path) -> Result<Self, SimError> {
        let key = |name: &str| {
            let path = dir.join(format!("{name}.key"));
            let text = read(&path)?;
            let base64 = text.trim().strip_prefix(BEGIN).and_then(|text| text.strip_suffix(END));
            let pkcs8 = base64.and_then(|base64| STANDARD.decode(base64.trim()).ok());
            let certificate = read(&dir.join(format!("{name}.pem")))?;
            let key = pkcs8.and_then(|pkcs8| Key::load(pkcs8, &certificate));
            let what = "P-256 key for its certificate";
            key.ok_or(SimError::State { what, path })
        };
        let [root, pck_ca, pck, tcb_signing, attestation] = NAMES;
        Ok(Self {
            root: key(root)?,
            pck_ca: key(pck_ca)?,
            pck: key(pck)?,
            tcb_signing: key(tcb_signing)?,
            attestation: key(attestation)?,
        })
    }

    /// Issues the collateral in the platform's folder again, unless its file is younger than half of its term. Returns whether it did.
    ///
    /// # Errors
    /// [`SimError`].
    pub fn refresh(&self, dir: &Path, now: Duration) -> Result<bool, SimError> {
        let path = TdPaths::of(dir).collateral;
        let failed = |doing| {
            let path = path.clone();
            move |source| file(doing, &path, source)
        };
        let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
        let age = written
            .ok()
            .and_then(|written| now.checked_sub(written.duration_since(UNIX_EPOCH).ok()?));
        if age.is_some_and(|age| age < TERM / 2) {
            return Ok(false);
        }
        let new = path.with_extension(format!("new-{}", std::process::id()));
        write(&new, &self.current(now)?.to_json())?;
        fs::rename(&new, &path).map_err(failed("replacing"))?;
        Ok(true)
    }

    fn current(&self, now: Duration) -> Result<Collateral, SimError> {
        self.collateral(&term(now))
    }

    fn keys(&self) -> [&Key; 5] {
        [
            &self.root,
            &self.pck_ca,
            &self.pck,
            &self.tcb_signing,
            &self.attestation,
        ]
    }
}

fn term(issued: Duration) -> TdJudgement {
    TdJudgement {
        holds: TERM,
        ..TdJudgement::up_to_date(issued)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        time::{SystemTime, UNIX_EPOCH},
    };

    use super::*;
    use crate::tdx::{Roots, TdxEvidence, TdxExpected, TdxOptions, verify};

    fn now() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
    }

    /// Whether a quote of the platform in the folder verifies with what the folder offers to others.
    fn verifies(dir: &Path, at: Duration) -> bool {
        let paths = TdPaths::of(dir);
        let roots = Roots::intel()
            .with_simulated_pem(&fs::read_to_string(paths.root).unwrap())
            .unwrap();
        let collateral = Collateral::from_json(&fs::read(paths.collateral).unwrap()).unwrap();
        let report = TdAuthority::report([1; 64], [2; 48], [[0; 48]; 4], [3; 48]);
        let quote = TdAuthority::load(dir).unwrap().quote(&report).unwrap();
        let evidence = TdxEvidence {
            quote: &quote,
            event_log: None,
        };
        let expected = TdxExpected {
            report_data: &[1; 64],
            mr_config_id: Some(&[3; 48]),
        };
        verify(&evidence, &collateral, &roots, &expected, &TdxOptions::default(), at).is_ok_and(|td| td.simulated)
    }

    #[test]
    fn a_platform_survives_its_folder_and_its_collateral_is_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("tdx");
        let platform = TdAuthority::generate().unwrap();
        let now = now() + Duration::from_secs(1);
        platform.save(&dir, now).unwrap();
        assert!(verifies(&dir, now + TERM - Duration::from_secs(1)));
        assert!(!verifies(&dir, now + TERM + Duration::from_secs(1)));
        let again = TdAuthority::load(&dir).unwrap();
        assert_eq!(again.root_spki_sha256(), platform.root_spki_sha256());

        assert!(!again.refresh(&dir, now + TERM / 3).unwrap(), "it is young");
        assert!(again.refresh(&dir, now + TERM).unwrap());
        assert!(verifies(&dir, now + TERM + Duration::from_secs(1)));
        fs::remove_file(TdPaths::of(&dir).collateral).unwrap();
        assert!(again.refresh(&dir, now).unwrap());
        assert!(verifies(&dir, now));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 11);

        let refused = platform.save(&dir, now);
        let is_full = |source: &io::Error| source.kind() == io::ErrorKind::DirectoryNotEmpty;
        assert!(matches!(refused, Err(SimError::File { source, .. }) if is_full(&source)));
    }

    #[test]
    fn keys_of_other_certificates_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("tdx");
        TdAuthority::generate().unwrap().save(&dir, now()).unwrap();
        fs::copy(dir.join("pck.key"), dir.join("root.key")).unwrap();
        assert!(matches!(TdAuthority::load(&dir), Err(SimError::State { path, .. }) if path == dir.join("root.key")));
        fs::write(dir.join("root.key"), "no key").unwrap();
        assert!(matches!(TdAuthority::load(&dir), Err(SimError::State { .. })));
        fs::remove_file(dir.join("root.key")).unwrap();
        assert!(matches!(TdAuthority::load(&dir), Err(SimError::File { .. })));
    }
}
