use super::*;

fn header(kind: EntryType, name: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(9);
    header.set_cksum();
    header
}

fn member(archive: &mut Vec<u8>, header: &Header, data: &[u8]) {
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        text.extend_from_slice(format!("{length} {key}=").as_bytes());
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    text
}

fn with_pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let records = pax(records);
    let mut bytes = Vec::new();
    member(
        &mut bytes,
        &header(EntryType::XHeader, "pax", records.len().try_into().unwrap()),
        &records,
    );
    bytes
}

fn fails(bytes: &[u8]) -> &'static str {
    let mut archive = Archive::new(bytes);
    loop {
        match archive.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the archive was taken"),
            Err(ArchiveError::Malformed { what }) => return what,
            Err(ArchiveError::Read(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                return "eof";
            }
        }
    }
}

#[test]
fn members_come_in_order_with_their_data() {
    let mut bytes = Vec::new();
    member(&mut bytes, &header(EntryType::Directory, "etc/", 0), b"");
    member(&mut bytes, &header(EntryType::Regular, "etc/motd", 600), &[b'x'; 600]);
    member(&mut bytes, &header(EntryType::Regular, "unread", 5), b"12345");
    let mut link = header(EntryType::Symlink, "link", 0);
    link.set_link_name("etc/motd").unwrap();
    link.set_cksum();
    member(&mut bytes, &link, b"");
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    let mut archive = Archive::new(&bytes[..]);
    let first = archive.next().unwrap().unwrap();
    assert_eq!((first.kind, first.path.as_slice()), (Kind::Directory, &b"etc/"[..]));
    let second = archive.next().unwrap().unwrap();
    assert_eq!(
        (second.kind, second.size, second.uid, second.gid, second.mtime),
        (Kind::File, 600, 7, 8, 9)
    );
    let mut data = Vec::new();
    archive.data().read_to_end(&mut data).unwrap();
    assert_eq!(data, [b'x'; 600]);
    assert_eq!(archive.next().unwrap().unwrap().size, 5);
    let last = archive.next().unwrap().unwrap();
    assert_eq!((last.kind, last.link.as_slice()), (Kind::Symlink, &b"etc/motd"[..]));
    assert_eq!(archive.next().unwrap(), None);
}

#[test]
fn pax_records_override_the_header_and_may_hold_any_byte() {
    let long = "d/".repeat(150) + "file";
    let mut bytes = with_pax(&[
        ("path", long.as_bytes()),
        ("uid", b"70000"),
        ("mtime", b"-5.25"),
        ("size", b"3"),
        ("SCHILY.xattr.security.capability", b"\x01\n\x00=\n"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/"),
    ]);
    member(&mut bytes, &header(EntryType::Regular, "short", 0), b"abc");
    let mut archive = Archive::new(&bytes[..]);
    let found = archive.next().unwrap().unwrap();
    assert_eq!(found.path, long.as_bytes());
    assert_eq!((found.uid, found.gid, found.mtime, found.size), (70000, 8, -5, 3));
    assert_eq!(found.capability.as_deref(), Some(&b"\x01\n\x00=\n"[..]));
    assert_eq!(archive.next().unwrap(), None);
}

#[test]
fn gnu_long_names_are_taken() {
    let long = "e/".repeat(300);
    let mut bytes = Vec::new();
    let mut name = long.clone().into_bytes();
    name.push(0);
    member(
        &mut bytes,
        &header(EntryType::GNULongName, "././@LongLink", name.len().try_into().unwrap()),
        &name,
    );
    member(&mut bytes, &header(EntryType::GNULongLink, "././@LongLink", 4), b"to/x");
    member(&mut bytes, &header(EntryType::Link, "cut", 0), b"");
    let found = Archive::new(&bytes[..]).next().unwrap().unwrap();
    assert_eq!(
        (found.kind, found.path.as_slice(), found.link.as_slice()),
        (Kind::HardLink, long.as_bytes(), &b"to/x"[..])
    );
}

#[test]
fn lengths_are_bounded_before_they_are_believed() {
    for (kind, what) in [
        (EntryType::GNULongName, "a path is longer than 4096 bytes"),
        (EntryType::XHeader, "a member's PAX records are longer than 1 MiB"),
        (EntryType::XGlobalHeader, "global PAX records are longer than 1 MiB"),
    ] {
        for size in [2 << 20, 1 << 40, u64::MAX >> 2] {
            let mut bytes = Vec::new();
            member(&mut bytes, &header(kind, "x", size), b"");
            assert_eq!(fails(&bytes), what);
        }
    }
    let mut bytes = with_pax(&[("path", &[b'p'; 5000])]);
    assert_eq!(fails(&bytes), "a path is longer than 4096 bytes");
    bytes = with_pax(&[("size", b"18446744073709551615")]);
    member(&mut bytes, &header(EntryType::Regular, "x", 0), b"");
    assert_eq!(fails(&bytes), "a member's size is out of range");
}

#[test]
fn what_is_not_understood_is_refused() {
    let mut bytes = Vec::new();
    member(&mut bytes, &header(EntryType::GNUSparse, "s", 0), b"");
    assert_eq!(fails(&bytes), "sparse members are not supported");
    assert_eq!(
        fails(&with_pax(&[("GNU.sparse.major", b"1")])),
        "sparse members are not supported"
    );
    let mut bytes = Vec::new();
    member(&mut bytes, &header(EntryType::new(b'V'), "s", 0), b"");
    assert_eq!(fails(&bytes), "a member's type is unknown");
    let mut bytes = Vec::new();
    let mut wrong = header(EntryType::Regular, "s", 0);
    wrong.as_mut_bytes()[0] ^= 1;
    member(&mut bytes, &wrong, b"");
    assert_eq!(fails(&bytes), "a header's checksum is wrong");
    assert_eq!(
        fails(&with_pax(&[("path", b"x")])),
        "the end comes where a member should"
    );
}

#[test]
fn truncation_is_an_error_and_no_flipped_bit_panics() {
    let mut bytes = with_pax(&[("path", b"name"), ("mtime", b"1.5")]);
    member(&mut bytes, &header(EntryType::Regular, "x", 600), &[1; 600]);
    let read_all = |bytes: &[u8]| -> Result<usize, ArchiveError> {
        let mut archive = Archive::new(bytes);
        let mut members = 0;
        while archive.next()?.is_some() {
            members += 1;
        }
        Ok(members)
    };
    for length in 1..bytes.len() {
        assert!(read_all(&bytes[..length]).is_err(), "cut after {length}");
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let _ = read_all(&flipped);
    }
}
