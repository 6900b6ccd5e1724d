//! The platform's keys in their folder: made once, then only read. Collateral is issued again when it becomes old.
//!
//! ```text
//! DIR/{ark,ask,vcek}.pem, vcek.key          the SNP chip; ark.pem is its root
//! DIR/tdx/root.pem, collateral.json, *.key  the TDX platform, its root, and what Intel would say of it
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cella_attest::sim::{Authority, Chip, ChipSpec, SimError, TdAuthority, TdPaths};
use slog::{Logger, info};

use crate::launch::Keys;

/// Makes the keys unless the folder holds them, and gives the path of SNP's root certificate. Two at a time make one platform.
///
/// The keys of SNP's root and signing key are dropped once the chip is certified: nothing needs them again.
pub(crate) fn init(dir: &Path, log: &Logger) -> Result<PathBuf, SimError> {
    match Chip::load(dir) {
        Ok(_) => info!(log, "platform is there already"; "state" => %dir.display()),
        Err(error) if is(&error, io::ErrorKind::NotFound) => make(dir, log)?,
        Err(error) => return Err(error),
    }
    init_td(&td_dir(dir), log)?;
    Ok(Chip::ark_path(dir))
}

/// Reads what [`init`] made.
pub(crate) fn load(dir: &Path) -> Result<Keys, SimError> {
    Ok(Keys {
        chip: Chip::load(dir)?,
        td: TdAuthority::load(&td_dir(dir))?,
    })
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

/// A folder of before TDX was imitated gets this part when `init` runs again.
fn init_td(dir: &Path, log: &Logger) -> Result<(), SimError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let platform = match TdAuthority::load(dir) {
        Err(error) if is(&error, io::ErrorKind::NotFound) => {
            info!(log, "making the TDX platform's keys"; "state" => %dir.display());
            match TdAuthority::generate()?.save(dir, now) {
                // As above.
                Err(error) if is(&error, io::ErrorKind::DirectoryNotEmpty) => {
                    TdAuthority::load(dir).map_err(|_| error)?
                }
                other => return other,
            }
        }
        other => other?,
    };
    if platform.refresh(dir, now)? {
        info!(log, "collateral issued"; "file" => %TdPaths::of(dir).collateral.display());
    }
    Ok(())
}

fn td_dir(dir: &Path) -> PathBuf {
    dir.join("tdx")
}

fn is(error: &SimError, kind: io::ErrorKind) -> bool {
    matches!(error, SimError::File { source, .. } if source.kind() == kind)
}
