//! The platform's keys in their folder: made once, then only read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cella_attest::sim::{Authority, Chip, ChipSpec, SimError};
use slog::{Logger, info};

/// Makes the keys unless the folder holds them, and gives the path of the root certificate. Two at a time make one platform.
///
/// The keys of root and signing key are dropped once the chip is certified: nothing needs them again.
pub(crate) fn init(dir: &Path, log: &Logger) -> Result<PathBuf, SimError> {
    match Chip::load(dir) {
        Ok(_) => info!(log, "platform is there already"; "state" => %dir.display()),
        Err(error) if is(&error, io::ErrorKind::NotFound) => make(dir, log)?,
        Err(error) => return Err(error),
    }
    Ok(Chip::ark_path(dir))
}

fn make(dir: &Path, log: &Logger) -> Result<(), SimError> {
    info!(log, "making the platform's keys"; "state" => %dir.display());
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(|source| SimError::File {
            doing: "creating",
            path: parent.to_owned(),
            source,
        })?;
    }
    match Authority::generate()?.chip(&ChipSpec::random())?.save(dir) {
        // Another process was faster, or the folder holds other things: reading it tells.
        Err(error) if is(&error, io::ErrorKind::DirectoryNotEmpty) => Chip::load(dir).map(drop).map_err(|_| error),
        other => other,
    }
}

fn is(error: &SimError, kind: io::ErrorKind) -> bool {
    matches!(error, SimError::File { source, .. } if source.kind() == kind)
}
