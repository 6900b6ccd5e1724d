//! Evidence that real processors signed, out of the packages that publish it (`libs/attest/tests/fetch-vectors.sh`).
use std::{env, fs, path::PathBuf, process::Command, sync::OnceLock};

use anyhow::{Context, Result, anyhow, ensure};
use cella_attest::Evidence;
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// A vector's bytes, by the script's name for it.
pub(crate) fn read(name: &str) -> Result<Vec<u8>> {
    let path = folder()?.join(name);
    fs::read(&path).with_context(|| path.display().to_string())
}

/// A Milan's report of version 2 with its chain up to AMD's root.
pub(crate) fn milan() -> Result<Evidence> {
    Ok(Evidence {
        report: hex::decode(read("milan.hex")?)?,
        chain: chain("milan-vcek.der", "ask-ark-milan.pem")?,
    })
}

/// A Milan's report with the debug bit, of a cloud's test.
pub(crate) fn milan_debug() -> Result<Evidence> {
    Ok(Evidence {
        report: read("milan-debug.bin")?,
        chain: chain("milan-debug.der", "ask-ark-milan.pem")?,
    })
}

fn chain(vcek: &str, authorities: &str) -> Result<Vec<Vec<u8>>> {
    let pem = read(authorities)?;
    let authorities = CertificateDer::pem_slice_iter(&pem).map(|der| Ok(der?.to_vec()));
    [Ok(read(vcek)?)].into_iter().chain(authorities).collect()
}

/// The folder, filled on first use.
fn folder() -> Result<&'static PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOLDER
        .get_or_init(|| fetch().map_err(|e| format!("{e:?}")))
        .as_ref()
        .map_err(|e| anyhow!("{e}"))
}

fn fetch() -> Result<PathBuf> {
    let cache = env::var_os("CELLA_CACHE").map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/cella"));
    let folder = cache
        .or_else(home)
        .context("neither CELLA_CACHE nor HOME is set")?
        .join("vectors/attest");
    let script = cella_tests::stack::repository().join("libs/attest/tests/fetch-vectors.sh");
    let status = Command::new("sh").arg(&script).arg(&folder).status()?;
    ensure!(
        status.success(),
        "{} could not fetch the vectors: {status}",
        script.display()
    );
    Ok(folder)
}
