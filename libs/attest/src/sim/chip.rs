//! A chip: the key that signs reports, with the chain that leads to it, in memory and in a folder.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use p384::{
    ecdsa::{Signature, SigningKey, signature::Signer},
    pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding},
};
use rsa::rand_core::{OsRng, RngCore};
use x509_cert::{
    Certificate,
    der::{Decode, DecodePem, Encode, EncodePem},
};

use super::{Claims, SimError};
use crate::{
    Evidence,
    chain::{self, ChainChecks},
    digest::sha256,
    snp::{self, Product, TcbVersion},
    vek::{Extensions, oid},
};

/// File names, in the order of the chain.
const CERTIFICATES: [&str; 3] = ["vcek.pem", "ask.pem", "ark.pem"];
const KEY: &str = "vcek.key";
/// Largest file that is read.
const MAX_FILE: usize = 16 * 1024;

/// What a chip's VCEK is certified for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChipSpec {
    /// The chip's identity.
    pub chip_id: [u8; 64],
    /// TCB that the key is made for. Genoa has no FMC level.
    pub tcb: TcbVersion,
    /// Line of processors.
    pub product: Product,
    /// Kind of key. A chip that is kept in a folder has a VCEK.
    pub signing_key: snp::SigningKey,
}

impl ChipSpec {
    /// A chip with a random identity and the TCB of a Genoa of 2024.
    pub fn random() -> Self {
        let mut chip_id = [0; 64];
        OsRng.fill_bytes(&mut chip_id);
        Self {
            chip_id,
            tcb: TcbVersion {
                fmc: None,
                bootloader: 10,
                tee: 0,
                snp: 23,
                microcode: 84,
            },
            product: Product::Genoa,
            signing_key: snp::SigningKey::Vcek,
        }
    }

    /// The chip's identity as the certificate of its key has it.
    pub(super) fn hw_id(&self) -> &[u8] {
        let len = match self.product {
            Product::Turin => 8,
            Product::Milan | Product::Genoa => 64,
        };
        self.chip_id.get(..len).unwrap_or_default()
    }
}

/// A simulated chip.
pub struct Chip {
    key: SigningKey,
    chain: [Vec<u8>; 3],
    spec: ChipSpec,
}

impl Chip {
    pub(super) fn new(key: SigningKey, chain: [Vec<u8>; 3], spec: ChipSpec) -> Self {
        Self { key, chain, spec }
    }

    /// Signs a report with these claims.
    ///
    /// # Errors
    /// [`SimError::Sign`].
    pub fn issue(&self, claims: &Claims) -> Result<Evidence, SimError> {
        let unsigned = claims.encode(&self.spec);
        let signature: Signature = self
            .key
            .try_sign(&unsigned)
            .map_err(|source| SimError::Sign { what: "report", source })?;
        let (r, s) = signature.split_bytes();
        let mut report = unsigned;
        for scalar in [r, s] {
            report.extend(scalar.iter().rev());
            report.extend([0; 24]);
        }
        report.resize(crate::snp::REPORT_LEN, 0);
        Ok(Evidence {
            report,
            chain: self.chain.to_vec(),
        })
    }

    /// What the VCEK is certified for.
    pub fn spec(&self) -> &ChipSpec {
        &self.spec
    }

    /// The chain in DER: VCEK, ASK, ARK.
    pub fn chain(&self) -> &[Vec<u8>; 3] {
        &self.chain
    }

    /// The root certificate in PEM: what [`crate::Anchors::with_simulated_pem`] takes.
    ///
    /// # Errors
    /// [`SimError::Encode`].
    pub fn ark_pem(&self) -> Result<String, SimError> {
        let [_, _, ark] = &self.chain;
        pem(ark).map_err(|source| SimError::Encode {
            what: "ARK certificate",
            source,
        })
    }

    /// Path of the root certificate in a folder that [`Chip::save`] wrote.
    pub fn ark_path(dir: &Path) -> PathBuf {
        dir.join("ark.pem")
    }

    /// Writes the chip to a folder that does not exist or is empty: four files, readable by their owner only. The folder appears whole or
    /// not at all.
    ///
    /// # Errors
    /// [`SimError::File`], with `AlreadyExists` or `DirectoryNotEmpty` as the cause when the folder holds something.
    pub fn save(&self, dir: &Path) -> Result<(), SimError> {
        appear(dir, |staging| self.write_files(staging))
    }

    /// Reads a chip back, and checks that key and certificates belong together.
    ///
    /// # Errors
    /// [`SimError::File`] or [`SimError::State`], both with the file.
    pub fn load(dir: &Path) -> Result<Self, SimError> {
        let key_path = dir.join(KEY);
        let key = SigningKey::from_pkcs8_pem(&read(&key_path)?).map_err(|_| SimError::State {
            what: "P-384 key",
            path: key_path.clone(),
        })?;
        let [vcek_path, ask_path, ark_path] = CERTIFICATES.map(|name| dir.join(name));
        let chain = [
            read_certificate(&vcek_path)?,
            read_certificate(&ask_path)?,
            read_certificate(&ark_path)?,
        ];
        let wrong = |what| SimError::State {
            what,
            path: vcek_path.clone(),
        };
        let anchors = crate::Anchors::none().with_simulated(spki_sha256(&chain).map_err(|_| wrong("chain"))?);
        let (vcek, _) = chain::verify_chain(&chain, &anchors, ChainChecks::default()).map_err(|_| wrong("chain"))?;
        let certified = vcek
            .tbs_certificate
            .subject_public_key_info
            .subject_public_key
            .raw_bytes();
        if certified != key.verifying_key().to_encoded_point(false).as_bytes() {
            return Err(SimError::State {
                what: "key of vcek.pem",
                path: key_path,
            });
        }
        let extensions = Extensions::of(&vcek);
        let tcb = extensions.tcb(Product::Genoa).map_err(|_| wrong("VCEK certificate"))?;
        let chip_id = extensions
            .bytes("hwID", oid::HW_ID)
            .ok()
            .flatten()
            .and_then(|id| id.try_into().ok());
        let spec = ChipSpec {
            chip_id: chip_id.ok_or_else(|| wrong("VCEK certificate"))?,
            tcb,
            product: Product::Genoa,
            signing_key: snp::SigningKey::Vcek,
        };
        Ok(Self { key, chain, spec })
    }

    fn write_files(&self, dir: &Path) -> Result<(), SimError> {
        let key = self.key.to_pkcs8_pem(LineEnding::LF).map_err(|_| SimError::Encode {
            what: "VCEK key",
            source: x509_cert::der::ErrorKind::Failed.into(),
        })?;
        write(&dir.join(KEY), key.as_bytes())?;
        for (name, certificate) in CERTIFICATES.iter().zip(&self.chain) {
            let text = pem(certificate).map_err(|source| SimError::Encode {
                what: "certificate",
                source,
            })?;
            write(&dir.join(name), text.as_bytes())?;
        }
        Ok(())
    }
}

/// Makes a folder that does not exist or is empty, readable by its owner only, and lets it be filled. It appears whole or not at all.
pub(super) fn appear(dir: &Path, fill: impl FnOnce(&Path) -> Result<(), SimError>) -> Result<(), SimError> {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let staging = dir.with_file_name(name);
    let filled = fs::DirBuilder::new()
        .mode(0o700)
        .create(&staging)
        .map_err(|source| file("creating", &staging, source))
        .and_then(|()| fill(&staging))
        .and_then(|()| {
            let synced = fs::File::open(&staging).and_then(|dir| dir.sync_all());
            synced.map_err(|source| file("writing", &staging, source))
        })
        .and_then(|()| fs::rename(&staging, dir).map_err(|source| file("moving the platform's state to", dir, source)));
    if filled.is_err() {
        // What is left says less than the error that is reported.
        let _ = fs::remove_dir_all(&staging);
    }
    filled
}

fn spki_sha256(chain: &[Vec<u8>; 3]) -> Result<[u8; 32], x509_cert::der::Error> {
    let [_, _, ark] = chain;
    Ok(sha256(
        &Certificate::from_der(ark)?
            .tbs_certificate
            .subject_public_key_info
            .to_der()?,
    ))
}

fn pem(der: &[u8]) -> Result<String, x509_cert::der::Error> {
    Certificate::from_der(der)?.to_pem(LineEnding::LF)
}

pub(super) fn file(doing: &'static str, path: &Path, source: io::Error) -> SimError {
    SimError::File {
        doing,
        path: path.to_owned(),
        source,
    }
}

pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), SimError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut out| out.write_all(content).and_then(|()| out.sync_all()))
        .map_err(|source| file("writing", path, source))
}

pub(super) fn read(path: &Path) -> Result<String, SimError> {
    let text = fs::read_to_string(path).map_err(|source| file("reading", path, source))?;
    if text.len() > MAX_FILE {
        Err(SimError::State {
            what: "PEM text",
            path: path.to_owned(),
        })
    } else {
        Ok(text)
    }
}

fn read_certificate(path: &Path) -> Result<Vec<u8>, SimError> {
    let text = read(path)?;
    Certificate::from_pem(text.trim())
        .and_then(|certificate| certificate.to_der())
        .map_err(|_| SimError::State {
            what: "certificate",
            path: path.to_owned(),
        })
}
