//! Real reports and certificates, from the packages that publish them. `fetch-vectors.sh` fetches and pins them once.

use std::{env, fs, path::PathBuf, process::Command, sync::OnceLock};

/// Contents of a vector; the names are those of `fetch-vectors.sh`. Without a network and without a cache the test fails.
pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folder of vectors, fetched on first use.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let cache = env::var_os("CELLA_CACHE").map(PathBuf::from);
        let cache =
            cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cache/cella"));
        let folder = cache.join("vectors/attest");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fetch-vectors.sh");
        let status = Command::new("sh").arg(script).arg(&folder).status().expect("sh runs");
        assert!(status.success(), "{script} could not fetch the vectors: {status}");
        folder
    })
}
