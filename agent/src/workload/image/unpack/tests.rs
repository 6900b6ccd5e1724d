use std::os::unix::fs::MetadataExt;

use super::*;

/// A tar under construction.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, kind: tar::EntryType, path: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        // Past the crate's own checks: these are the archives of an attacker.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len().try_into().unwrap());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.add(tar::EntryType::Regular, path, "", 0o644, data)
    }

    fn dir(self, path: &str) -> Self {
        self.add(tar::EntryType::Directory, path, "", 0o750, b"")
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.add(tar::EntryType::Symlink, path, to, 0o777, b"")
    }

    fn hard_link(self, path: &str, to: &str) -> Self {
        self.add(tar::EntryType::Link, path, to, 0o644, b"")
    }
}

/// A folder with a layer directory in it; everything beside `layer` must stay as it is.
struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        fs::create_dir(room.layer()).unwrap();
        fs::write(room.0.path().join("outside"), b"untouched").unwrap();
        room
    }

    fn layer(&self) -> PathBuf {
        self.0.path().join("layer")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.layer().join(path)
    }

    fn unpack(&self, tar: &Tar) -> Result<u64, UnpackError> {
        self.unpack_within(tar, 1 << 20)
    }

    fn unpack_within(&self, tar: &Tar, limit: u64) -> Result<u64, UnpackError> {
        let layer = self.layer();
        let result = std::thread::scope(|scope| {
            let unpack = || {
                let confined = Confined::enter(&layer)?;
                Unpacker::new(confined, Arc::new(Budget::new(limit))).unpack(&mut Archive::new(&tar.0[..]))
            };
            scope.spawn(unpack).join().unwrap()
        });
        let mut beside: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        beside.sort();
        assert_eq!(beside, ["layer", "outside"], "something escaped");
        assert_eq!(fs::read(self.0.path().join("outside")).unwrap(), b"untouched");
        result
    }

    fn refused(&self, tar: &Tar) -> &'static str {
        match self.unpack(tar) {
            Err(UnpackError::Member { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }
}

fn whiteout(path: &Path) -> bool {
    is_whiteout(&fs::symlink_metadata(path).unwrap())
}

fn opaque(path: &Path) -> bool {
    xattr::get(path, "trusted.overlay.opaque").unwrap().as_deref() == Some(b"y")
}

#[test]
fn files_directories_and_links_keep_their_attributes() {
    let room = Room::new();
    let tar = Tar::default()
        .dir("usr/")
        .add(tar::EntryType::Regular, "usr/su", "", 0o4755, b"setuid")
        .hard_link("usr/again", "usr/su")
        .symlink("bin", "usr")
        .add(tar::EntryType::Fifo, "pipe", "", 0o600, b"");
    assert_eq!(room.unpack(&tar).unwrap(), 0);
    let su = fs::metadata(room.at("usr/su")).unwrap();
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.gid(), su.mtime()),
        (0o4755, 1000, 1001, 1_700_000_000)
    );
    assert_eq!(fs::metadata(room.at("usr/again")).unwrap().ino(), su.ino());
    let usr = fs::metadata(room.at("usr")).unwrap();
    assert_eq!((usr.mode() & 0o7777, usr.uid()), (0o750, 1000));
    assert_eq!(fs::read_link(room.at("bin")).unwrap(), Path::new("usr"));
    assert_eq!(fs::symlink_metadata(room.at("bin")).unwrap().uid(), 1000);
    assert!(fs::metadata(room.at("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn absolute_paths_stay_inside() {
    let room = Room::new();
    room.unpack(&Tar::default().file("/etc/passwd", b"mine").file("./a/./b", b"b"))
        .unwrap();
    assert_eq!(fs::read(room.at("etc/passwd")).unwrap(), b"mine");
    assert_eq!(fs::read(room.at("a/b")).unwrap(), b"b");
}

#[test]
fn dot_dot_is_refused_in_names_and_hard_link_targets() {
    for path in ["../outside", "a/../../outside", "..", "/../outside", "a/.."] {
        assert_eq!(
            Room::new().refused(&Tar::default().file(path, b"x")),
            "its path holds \"..\"",
            "{path}"
        );
    }
    let tar = Tar::default().hard_link("a", "../outside");
    assert_eq!(Room::new().refused(&tar), "its path holds \"..\"");
}

#[test]
fn symbolic_links_do_not_lead_outside() {
    for to in ["/", "..", "../..", "../../../../..", "/proc/self/root", "/tmp"] {
        let room = Room::new();
        let outside = room.0.path().join("outside");
        let inner = outside.strip_prefix("/").unwrap().to_str().unwrap().to_owned();
        let tar = Tar::default()
            .symlink("out", to)
            .file("out/outside", b"new")
            .file(&format!("out/{inner}"), b"new");
        // Whether a target exists within the layer decides if it is taken; `unpack` asserts that nothing escaped.
        let _ = room.unpack(&tar);
    }
    let room = Room::new();
    let target = room.0.path().join("outside");
    let tar = Tar::default()
        .symlink("file", target.to_str().unwrap())
        .file("file", b"replaced");
    room.unpack(&tar).unwrap();
    assert_eq!(fs::read(room.at("file")).unwrap(), b"replaced");
    let tar = Tar::default().hard_link("stolen", target.to_str().unwrap());
    assert_eq!(Room::new().refused(&tar), "it links to nothing");
}

#[test]
fn a_hard_link_does_not_follow_a_symbolic_link() {
    let room = Room::new();
    let target = room.0.path().join("outside");
    let tar = Tar::default()
        .symlink("s", target.to_str().unwrap())
        .hard_link("h", "s");
    room.unpack(&tar).unwrap();
    assert!(fs::symlink_metadata(room.at("h")).unwrap().is_symlink());
}

#[test]
fn whiteouts_take_the_form_of_overlayfs() {
    let room = Room::new();
    let tar = Tar::default()
        .file("etc/.wh.gone", b"")
        .dir("var/")
        .file("var/.wh..wh..opq", b"")
        .file("var/kept", b"kept")
        .file(".wh..wh.plnk", b"")
        .file(".wh..wh.aufs", b"");
    room.unpack(&tar).unwrap();
    assert!(whiteout(&room.at("etc/gone")));
    assert!(opaque(&room.at("var")));
    assert_eq!(fs::read(room.at("var/kept")).unwrap(), b"kept");
    assert_eq!(fs::read_dir(room.layer()).unwrap().count(), 2);
}

#[test]
fn a_whiteout_never_hides_the_layers_own_member() {
    let room = Room::new();
    let tar = Tar::default()
        .file("a/x", b"x")
        .file(".wh.a", b"")
        .file("f", b"f")
        .file(".wh.f", b"")
        .file(".wh.b", b"")
        .file("b/y", b"y")
        .file(".wh.g", b"")
        .file("g", b"g")
        .file(".wh.d", b"")
        .dir("d/");
    room.unpack(&tar).unwrap();
    assert!(opaque(&room.at("a")) && opaque(&room.at("b")) && opaque(&room.at("d")));
    assert_eq!(fs::read(room.at("a/x")).unwrap(), b"x");
    assert_eq!(fs::read(room.at("f")).unwrap(), b"f");
    assert_eq!(fs::read(room.at("b/y")).unwrap(), b"y");
    assert_eq!(fs::read(room.at("g")).unwrap(), b"g");
}

#[test]
fn overlayfs_shows_what_the_layers_mean() {
    let room = Room::new();
    let upper = Tar::default()
        .file(".wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .file("d/new", b"n");
    room.unpack(&upper).unwrap();
    let lower = Room::new();
    lower
        .unpack(&Tar::default().file("gone", b"").file("stays", b"").file("d/old", b""))
        .unwrap();
    let merged = tempfile::tempdir().unwrap();
    let options = format!("lowerdir={}:{}", room.layer().display(), lower.layer().display());
    let none: Option<&str> = None;
    let flags = nix::mount::MsFlags::MS_RDONLY;
    nix::mount::mount(none, merged.path(), Some("overlay"), flags, Some(options.as_str())).unwrap();
    let names = |path: PathBuf| {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let found = (names(merged.path().to_owned()), names(merged.path().join("d")));
    nix::mount::umount2(merged.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!(found, (vec!["d".into(), "stays".into()], vec!["new".into()]));
}

#[test]
fn whiteouts_of_nothing_are_refused() {
    for name in [".wh.", ".wh..", ".wh..."] {
        assert_eq!(
            Room::new().refused(&Tar::default().file(name, b"")),
            "a whiteout names nothing"
        );
    }
}

#[test]
fn device_nodes_are_left_out_and_counted() {
    let room = Room::new();
    let tar = Tar::default()
        .add(tar::EntryType::Char, "dev/mem", "", 0o666, b"")
        .add(tar::EntryType::Block, "dev/sda", "", 0o666, b"")
        .file("ok", b"");
    assert_eq!(room.unpack(&tar).unwrap(), 2);
    assert_eq!(fs::read_dir(room.at("dev")).unwrap().count(), 0);
}

#[test]
fn later_members_replace_earlier_ones() {
    let room = Room::new();
    let tar = Tar::default()
        .file("a/b", b"1")
        .file("a", b"file now")
        .file("x", b"1")
        .file("x", b"2")
        .symlink("y", "x")
        .dir("y/")
        .file("y/z", b"z")
        .dir("k/")
        .file("k/in", b"in")
        .dir("k/");
    room.unpack(&tar).unwrap();
    assert_eq!(fs::read(room.at("a")).unwrap(), b"file now");
    assert_eq!(fs::read(room.at("x")).unwrap(), b"2");
    assert_eq!(fs::read(room.at("y/z")).unwrap(), b"z");
    assert_eq!(fs::read(room.at("k/in")).unwrap(), b"in");
}

#[test]
fn what_cannot_be_is_said_by_number_never_by_name() {
    let room = Room::new();
    let tar = Tar::default()
        .file("ok", b"")
        .symlink("secretname", "secretname")
        .file("secretname/x", b"");
    let error = room.unpack(&tar).unwrap_err();
    assert!(matches!(error, UnpackError::Member { member: 3, .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("secretname"));
    assert_eq!(
        Room::new().refused(&Tar::default().file("f", b"").file("f/x", b"")),
        "its parent is not a directory"
    );
}

#[test]
fn space_is_charged_before_it_is_used() {
    let big = Tar::default().file("big", &[1; 300_000]);
    let room = Room::new();
    assert!(matches!(
        room.unpack_within(&big, 200_000),
        Err(UnpackError::Space { limit: 200_000 })
    ));
    assert!(!room.at("big").exists());
    let mut many = Tar::default();
    for index in 0..300 {
        many = many.file(&format!("f{index}"), b"");
    }
    assert!(matches!(
        Room::new().unpack_within(&many, 200_000),
        Err(UnpackError::Space { .. })
    ));
    let mut header = tar::Header::new_gnu();
    header.set_path("lie").unwrap();
    header.set_size(1 << 60);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    let lie = Tar(header.as_bytes().to_vec());
    assert!(matches!(Room::new().unpack(&lie), Err(UnpackError::Space { .. })));
}

#[test]
fn capabilities_are_kept_and_no_other_attribute() {
    let room = Room::new();
    let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut records = Vec::new();
    for (key, value) in [
        ("security.capability", &value[..]),
        ("trusted.overlay.redirect", &b"/"[..]),
    ] {
        let body = key.len() + value.len() + "SCHILY.xattr.".len() + 3 + 2;
        records.extend_from_slice(format!("{body} SCHILY.xattr.{key}=").as_bytes());
        records.extend_from_slice(value);
        records.push(b'\n');
    }
    let tar = Tar::default()
        .add(tar::EntryType::XHeader, "pax", "", 0o644, &records)
        .file("ping", b"");
    room.unpack(&tar).unwrap();
    assert_eq!(
        xattr::get(room.at("ping"), "security.capability").unwrap().unwrap(),
        value
    );
    assert_eq!(xattr::get(room.at("ping"), "trusted.overlay.redirect").unwrap(), None);
}
