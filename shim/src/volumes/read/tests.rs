//! Volumes as kubelet writes them, and as an attacker on the host would.
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A volume with one version, as kubelet's atomic writer makes it.
fn volume(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    write_version(root.path(), "..2026_1", files);
    root
}

fn write_version(root: &Path, version: &str, files: &[(&str, &str)]) {
    for (path, content) in files {
        let file = root.join(version).join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let first = path.split('/').next().unwrap();
        let _ = symlink(format!("..data/{first}"), root.join(first));
    }
    symlink(version, root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
}

fn contents(root: &Path) -> Vec<(String, String)> {
    let files = read(root).unwrap().into_iter();
    files
        .map(|file| (file.path, String::from_utf8(file.content).unwrap()))
        .collect()
}

fn pair(path: &str, content: &str) -> (String, String) {
    (path.to_owned(), content.to_owned())
}

#[test]
fn the_version_behind_data_is_what_is_read() {
    let root = volume(&[("key", "one"), ("a/b/c", "deep")]);
    assert_eq!(contents(root.path()), [pair("a/b/c", "deep"), pair("key", "one")]);
    write_version(root.path(), "..2026_2", &[("key", "two")]);
    assert_eq!(contents(root.path()), [pair("key", "two")], "the old version is gone");
    let file = read(root.path()).unwrap().remove(0);
    let stat = fs::metadata(root.path().join("key")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((file.mode, file.uid, file.gid), (0o640, stat.uid(), stat.gid()));
}

#[test]
fn a_plain_folder_and_a_single_file_are_volumes_too() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(contents(root.path()), []);
    fs::write(root.path().join("x"), "1").unwrap();
    fs::write(root.path().join(".hidden"), "2").unwrap();
    assert_eq!(contents(root.path()), [pair(".hidden", "2"), pair("x", "1")]);
    assert_eq!(contents(&root.path().join("x")), [pair("", "1")]);
}

#[test]
fn a_link_out_of_the_volume_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("shadow"), "secret of the host").unwrap();
    for target in [
        outside.path().join("shadow"),
        Path::new("..").join(outside.path().file_name().unwrap()).join("shadow"),
        "/proc/self/environ".into(),
    ] {
        let root = volume(&[("key", "one")]);
        symlink(&target, root.path().join("..data/evil")).unwrap();
        assert!(
            matches!(read(root.path()), Err(ReadError::Io { .. })),
            "{}",
            target.display()
        );
    }
    let root = tempfile::tempdir().unwrap();
    symlink(outside.path(), root.path().join("..data")).unwrap();
    assert!(matches!(read(root.path()), Err(ReadError::Io { .. })), "..data itself");
    let link = outside.path().join("volume");
    symlink(root.path(), &link).unwrap();
    assert!(read(&link).is_err(), "the volume itself");
}

#[test]
fn special_files_are_refused_by_name_and_nobody_waits_for_them() {
    let root = volume(&[("key", "one")]);
    let fifo = root.path().join("..2026_1/pipe");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    match read(root.path()) {
        Err(ReadError::Special { path }) => assert_eq!(path.file_name().unwrap(), "pipe"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(read(&fifo), Err(ReadError::Special { .. })));
}

#[test]
fn size_number_and_depth_are_bounded() {
    let half = "x".repeat(MAX_BYTES / 2 + 1);
    let root = volume(&[("a", &half)]);
    assert!(read(root.path()).is_ok());
    fs::write(root.path().join("..data/b"), &half).unwrap();
    assert!(matches!(read(root.path()), Err(ReadError::TooLarge { .. })));

    let root = tempfile::tempdir().unwrap();
    for number in 0..=MAX_FILES {
        fs::write(root.path().join(number.to_string()), "").unwrap();
    }
    assert!(matches!(read(root.path()), Err(ReadError::TooLarge { .. })));

    let root = tempfile::tempdir().unwrap();
    symlink(".", root.path().join("loop")).unwrap();
    assert!(matches!(read(root.path()), Err(ReadError::TooLarge { .. })), "a loop");
}
