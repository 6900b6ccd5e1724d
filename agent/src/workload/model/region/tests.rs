use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
};

use super::*;
use crate::workload::{
    model::locked::{LockError, verified},
    proc::{self, FileId},
    store::Store,
};

/// A huge-page tmpfs of its own, gone when dropped.
struct Mount {
    store: Store,
    folder: tempfile::TempDir,
}

impl Mount {
    fn new() -> Self {
        Self::of(256 << 20)
    }

    fn of(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Store::for_models(folder.path(), bytes).unwrap(),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        assert_eq!(self.store.root(), self.folder.path());
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> File {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(name))
            .unwrap()
    }
}

fn filled(mount: &Mount, name: &str, len: usize) -> Region {
    let region = Region::create(&mount.file(name), len).unwrap();
    for part in 0..region.parts() {
        region.populate(part).unwrap();
    }
    region
}

fn smaps(frozen: &Frozen) -> proc::Mapping {
    let found = proc::mappings(Path::new("/proc/self")).unwrap();
    found
        .into_iter()
        .find(|mapping| mapping.range == frozen.range())
        .unwrap()
}

#[test]
fn written_pieces_become_locked_read_only_memory() {
    let mount = Mount::new();
    for (name, len) in [
        ("small", 1000),
        ("page", 4096),
        ("odd", 4_194_304 - 4097),
        ("four", 4 << 20),
        ("big", 67 << 20),
    ] {
        let mut region = filled(&mount, name, len);
        let mut pieces = region.pieces([len / 3, len - len / 3]).unwrap();
        pieces[0].fill(1);
        pieces[1].fill(2);
        assert!(matches!(region.pieces([len]), Err(PieceError::InUse)));
        drop(pieces);
        let frozen = region.freeze().unwrap();
        assert_eq!((frozen.bytes()[0], frozen.bytes()[len - 1]), (1, 2));
        let mapping = smaps(&frozen);
        let file = mount.path(name);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), u64::try_from(len).unwrap());
        assert_eq!(mapping.file, FileId::of(&std::fs::metadata(&file).unwrap()), "{name}");
        assert_eq!((mapping.locked, mapping.rss), (mapping.size, mapping.size), "{name}");
        assert!(
            mapping.has("lo") && mapping.has("dd") && mapping.has("dc") && !mapping.writable,
            "{name}"
        );
        assert_eq!(mapping.huge, mapping.size, "{name}: not in huge pages");
        drop(frozen);
        assert!(
            std::fs::read(&file).unwrap().iter().all(|byte| *byte == 0),
            "{name} was not zeroed"
        );
    }
}

#[test]
fn without_huge_pages_every_page_of_the_file_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::for_images(folder.path(), 8 << 20).unwrap();
    let file = store.root().join("a");
    let mut options = OpenOptions::new();
    let len = (3 << 20) + 5;
    let mut region = Region::create(
        &options.read(true).write(true).create_new(true).open(file).unwrap(),
        len,
    )
    .unwrap();
    region.populate(0).unwrap();
    region.pieces([len]).unwrap()[0].fill(9);
    let frozen = region.freeze().unwrap();
    let mapping = smaps(&frozen);
    assert_eq!(
        (mapping.size, mapping.locked, mapping.huge),
        ((3 << 20) + 4096, (3 << 20) + 4096, 0)
    );
    assert!(frozen.bytes().iter().all(|byte| *byte == 9));
}

#[test]
fn an_empty_file_needs_no_memory() {
    let mount = Mount::new();
    let mut region = filled(&mount, "empty", 0);
    assert_eq!(region.pieces([0]).unwrap()[0].len(), 0);
    let frozen = region.freeze().unwrap();
    assert_eq!((frozen.len(), frozen.range().is_empty()), (0, true));
}

#[test]
fn memory_is_not_handed_out_before_it_is_there_or_beyond_its_end() {
    let mount = Mount::new();
    let mut region = Region::create(&mount.file("a"), 3 << 20).unwrap();
    assert!(matches!(region.pieces([3 << 20]), Err(PieceError::NotPopulated)));
    region.populate(0).unwrap();
    assert_eq!(region.populate(1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    for lengths in [vec![1], vec![3 << 20, 1], vec![usize::MAX, 1]] {
        assert!(matches!(region.pieces(lengths), Err(PieceError::Lengths)));
    }
    let pieces = region.pieces([1 << 20, 2 << 20]).unwrap();
    assert!(matches!(region.freeze(), Err(FreezeError::InUse)));
    drop(pieces);
}

#[test]
fn a_lack_of_memory_is_an_error_of_populate() {
    let mount = Mount::of(16 << 20);
    let region = Region::create(&mount.file("a"), 18 << 20).unwrap();
    assert!((0..region.parts()).any(|part| region.populate(part).is_err()));
}

#[test]
fn a_region_dropped_half_way_leaves_zeros() {
    let mount = Mount::new();
    let mut region = filled(&mount, "a", 2 << 20);
    let mut pieces = region.pieces([1 << 20, 1 << 20]).unwrap();
    pieces[1].fill(7);
    let last = pieces.pop().unwrap();
    drop(region);
    drop(pieces);
    let file = mount.path("a");
    assert_eq!(std::fs::read(&file).unwrap()[1 << 20], 7);
    drop(last);
    assert!(std::fs::read(&file).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn locked_pages_cannot_be_paged_out() {
    let mount = Mount::new();
    let mut region = filled(&mount, "a", 2 << 20);
    drop(region.pieces([2 << 20]).unwrap());
    let frozen = region.freeze().unwrap();
    let error = frozen.map.advise(0..frozen.map.span, libc::MADV_PAGEOUT).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn a_lock_is_believed_only_as_the_kernel_shows_it() {
    let mount = Mount::new();
    let frozen = |name: &str| {
        let mut region = filled(&mount, name, (2 << 20) + 5);
        drop(region.pieces([(2 << 20) + 5]).unwrap());
        let id = FileId::of(&std::fs::metadata(mount.path(name)).unwrap());
        (region.freeze().unwrap(), id)
    };
    let (whole, id) = frozen("whole");
    let all = 4u64 << 20;
    assert_eq!(verified(&whole, id).unwrap(), (all, all, all));

    let (unlocked, id) = frozen("unlocked");
    // SAFETY: the whole of a mapping that `unlocked` owns; unlocking changes no content.
    check(unsafe { libc::munlock(unlocked.map.raw(), unlocked.map.span) }).unwrap();
    let error = verified(&unlocked, id).unwrap_err();
    assert!(
        matches!(error, LockError::NotLocked { size, locked: 0, .. } if size == all),
        "{error}"
    );

    let (mut writable, id) = frozen("writable");
    writable.map.protect(libc::PROT_READ | libc::PROT_WRITE).unwrap();
    assert!(matches!(verified(&writable, id).unwrap_err(), LockError::Flags { .. }));

    let (dumped, id) = frozen("dumped");
    dumped.map.advise(0..dumped.map.span, libc::MADV_DODUMP).unwrap();
    assert!(matches!(verified(&dumped, id).unwrap_err(), LockError::Flags { .. }));

    // Another file in its place.
    let (other, _) = frozen("other");
    assert!(matches!(verified(&other, id).unwrap_err(), LockError::NotMapped));
}

#[test]
fn settled_pieces_are_read_as_one() {
    let mount = Mount::new();
    let mut region = filled(&mount, "a", 1000);
    let pieces = region.pieces([300, 300, 400]).unwrap();
    let settled: Vec<_> = (1u8..)
        .zip(pieces)
        .map(|(fill, mut piece)| {
            piece.fill(fill);
            piece.settle()
        })
        .collect();
    let found = settled_bytes(&settled[..2], 100..600).unwrap();
    assert_eq!(
        (found.len(), found[0], found[199], found[200], found[499]),
        (500, 1, 1, 2, 2)
    );
    assert_eq!(settled_bytes(&settled[1..2], 300..600).unwrap(), [2; 300]);
    for (pieces, range) in [
        (&settled[..2], 100..601),
        (&settled[1..], 299..400),
        (&settled[..0], 0..0),
        (&settled[..], 0..usize::MAX),
    ] {
        assert!(settled_bytes(pieces, range).is_none());
    }
    assert!(
        settled_bytes([&settled[0], &settled[2]], 0..300).is_none(),
        "not consecutive"
    );
    let mut other = filled(&mount, "b", 1000);
    let other: Vec<_> = other
        .pieces([300, 700])
        .unwrap()
        .into_iter()
        .map(Piece::settle)
        .collect();
    assert!(
        settled_bytes([&settled[0], &other[1]], 0..1000).is_none(),
        "not of one file"
    );
    assert!(matches!(region.freeze(), Err(FreezeError::InUse)));
}
