//! Replaces a directory's files so that a reader sees all of the old ones or all of the new ones.
//!
//! ```text
//! volume/name ─▶ ..data/name          one link for each first part of a path
//! volume/..data ─▶ ..7                renamed over: the one step that counts
//! volume/..7/name                     the files, in a directory of their own
//! ```
//! kubelet's AtomicWriter does the same, and programs that watch a ConfigMap watch `..data`. Generations are numbers here
//! and times there. An update that breaks off before the rename leaves the old files in force; what it left over goes with
//! the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
};

use super::{FileContent, VolumeError};

/// Makes `dir` hold exactly `files`. `generation` is another one each time. Blocks for milliseconds.
pub(super) fn write(dir: &Path, generation: u64, files: &BTreeMap<PathBuf, FileContent>) -> Result<(), VolumeError> {
    let current = OsString::from(format!("..{generation}"));
    let home = dir.join(&current);
    remove(&home)?;
    make_dir(&home)?;
    for (path, file) in files {
        write_below(&home, path, file)?;
    }
    let staged = dir.join("..data_tmp");
    remove(&staged)?;
    symlink(&current, &staged).map_err(VolumeError::io("linking", &staged))?;
    let data = dir.join("..data");
    fs::rename(&staged, &data).map_err(VolumeError::io("replacing", &data))?;
    let tops = tops(files);
    for top in &tops {
        let link = dir.join(top);
        match symlink(Path::new("..data").join(top), &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(VolumeError::io("linking", link))?,
        }
    }
    sweep(dir, &current, &tops)
}

/// Writes one file that containers have bound, in place: they keep the very file.
pub(super) fn write_single(path: &Path, file: &FileContent) -> Result<(), VolumeError> {
    let mut open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(VolumeError::io("opening", path))?;
    let length = u64::try_from(file.bytes.len()).unwrap_or(u64::MAX);
    open.write_all(&file.bytes)
        .and_then(|()| open.set_len(length))
        .map_err(VolumeError::io("writing", path))?;
    own(path, file)
}

/// Makes a directory that everybody may look into, whatever the umask.
pub(super) fn make_dir(path: &Path) -> Result<(), VolumeError> {
    DirBuilder::new()
        .mode(0o755)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .map_err(VolumeError::io("making", path))
}

fn write_below(home: &Path, path: &Path, file: &FileContent) -> Result<(), VolumeError> {
    let mut reached = home.to_owned();
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        reached.push(part);
        if parts.peek().is_some() && !reached.is_dir() {
            make_dir(&reached)?;
        }
    }
    write_single(&reached, file)
}

/// Owner first: a change of owner may take permissions away.
fn own(path: &Path, file: &FileContent) -> Result<(), VolumeError> {
    chown(path, Some(file.uid), Some(file.gid))
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(file.mode)))
        .map_err(VolumeError::io("handing over", path))
}

fn tops(files: &BTreeMap<PathBuf, FileContent>) -> BTreeSet<&OsStr> {
    files
        .keys()
        .filter_map(|path| match path.components().next() {
            Some(Component::Normal(top)) => Some(top),
            _ => None,
        })
        .collect()
}

/// Removes links and generations that are no longer used.
fn sweep(dir: &Path, current: &OsStr, tops: &BTreeSet<&OsStr>) -> Result<(), VolumeError> {
    let failed = |source| VolumeError::io("listing", dir)(source);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name != current && name != "..data" && !tops.contains(name.as_os_str()) {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Removes whatever is there; nothing is fine too. Links are not followed.
fn remove(path: &Path) -> Result<(), VolumeError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(VolumeError::io("removing", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<PathBuf, FileContent> {
        let own = fs::metadata("/proc/self").unwrap();
        list.iter()
            .map(|(path, content)| {
                let file = FileContent {
                    mode: 0o440,
                    uid: own.uid(),
                    gid: own.gid(),
                    bytes: content.as_bytes().to_vec(),
                };
                (PathBuf::from(path), file)
            })
            .collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_replaced_together_and_nothing_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, 1, &files(&[("a", "1"), ("gone", "x"), ("d/e/f", "deep")])).unwrap();
        assert_eq!(names(dir), ["..1", "..data", "a", "d", "gone"]);
        assert_eq!(fs::read_link(dir.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::read_to_string(dir.join("d/e/f")).unwrap(), "deep");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().mode() & 0o7777, 0o440);

        // Whoever has opened the directory of the old files still sees them all.
        let old = fs::File::open(dir.join("..data")).unwrap();
        write(dir, 2, &files(&[("a", "2"), ("new", "y")])).unwrap();
        assert_eq!(names(dir), ["..2", "..data", "a", "new"]);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "2");
        drop(old);
        write(dir, 3, &files(&[])).unwrap();
        assert_eq!(names(dir), ["..3", "..data"]);
    }

    #[test]
    fn an_update_that_broke_off_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, 1, &files(&[("a", "1")])).unwrap();
        // As if it had stopped just before the rename.
        make_dir(&dir.join("..2")).unwrap();
        fs::write(dir.join("..2/half"), "").unwrap();
        symlink("..2", dir.join("..data_tmp")).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        write(dir, 2, &files(&[("a", "2")])).unwrap();
        assert_eq!(names(dir), ["..2", "..data", "a"]);
        assert_eq!(names(&dir.join("..2")), ["a"]);
    }

    #[test]
    fn a_single_file_stays_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let file = files(&[("", "long content")]).remove(Path::new("")).unwrap();
        write_single(&path, &file).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let short = FileContent {
            bytes: b"short".to_vec(),
            ..file
        };
        write_single(&path, &short).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }
}
