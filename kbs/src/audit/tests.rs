use super::*;
use crate::testing::facts;
use ring::digest;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn entry() -> Entry<'static> {
    Entry::new(Event::Release, Outcome::Denied, "00112233")
}

/// A log of five lines, closed.
fn written(dir: &Path) -> PathBuf {
    let path = dir.join("audit.jsonl");
    let log = AuditLog::open(&path, None, NOW).unwrap();
    for n in 0..4 {
        let facts = facts();
        let mut entry = entry();
        entry.kid = Some(format!("demo/key/{n}"));
        entry.facts = Some(&facts);
        entry.reason = Some("measurement not in the rule".to_owned());
        log.append(&entry, NOW).unwrap();
    }
    path
}

#[test]
fn lines_say_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(written(dir.path())).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["event"], "start");
    assert_eq!(lines[0]["prev"], "0".repeat(64));
    assert_eq!(lines[1]["time"], "2027-01-15T08:00:00Z");
    assert_eq!(lines[4]["seq"], 4);
    assert_eq!(lines[4]["kid"], "demo/key/3");
    assert_eq!(lines[4]["outcome"], "denied");
    assert_eq!(lines[4]["ref"], "00112233");
    assert_eq!(lines[4]["measurement"], hex::encode(facts().launch_digest()));
    assert_eq!(lines[4]["simulated"], facts().simulated());
}

#[test]
fn the_chain_goes_on_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let before = verify(&path).unwrap();
    assert_eq!(before.lines, 5);
    let log = AuditLog::open(&path, None, NOW).unwrap();
    log.append(&entry(), NOW).unwrap();
    let head = log.head();
    drop(log);
    assert_eq!((head.lines, verify(&path).unwrap()), (7, head));
}

#[test]
fn any_change_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let good = std::fs::read(&path).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();

    // One byte, anywhere but in the last line, whose digest nothing holds yet.
    let last = good.len() - lines[4].len();
    for index in 0..last {
        let mut bytes = good.clone();
        bytes[index] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(verify(&path), Err(AuditError::Chain { .. })), "byte {index}");
    }
    // In the last line the head tells.
    let head = Head {
        lines: 5,
        sha256: hex::encode(digest::digest(&digest::SHA256, lines[4].trim_end().as_bytes())),
    };
    std::fs::write(&path, text.replace("demo/key/3", "demo/key/4")).unwrap();
    assert_ne!(verify(&path).unwrap(), head);

    for changed in [
        [lines[0], lines[2], lines[3], lines[4]].concat(),
        [lines[1], lines[2], lines[3], lines[4]].concat(),
        [lines[0], lines[2], lines[1], lines[3], lines[4]].concat(),
        [lines[0], lines[1], lines[1], lines[2]].concat(),
        [lines[0], "\n", lines[1]].concat(),
    ] {
        std::fs::write(&path, changed).unwrap();
        assert!(matches!(verify(&path), Err(AuditError::Chain { .. })));
        assert!(matches!(
            AuditLog::open(&path, None, NOW),
            Err(AuditError::Chain { .. })
        ));
    }
    std::fs::write(&path, text.replace("demo/key/1", "demo/key/9")).unwrap();
    assert!(matches!(verify(&path), Err(AuditError::Chain { line: 4, .. })));
}

#[test]
fn what_a_crash_left_is_cut_off_and_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let good = std::fs::read(&path).unwrap();
    let cut = good.len() - 10;
    std::fs::write(&path, &good[..cut]).unwrap();
    assert!(matches!(verify(&path), Err(AuditError::Torn { line: 5, .. })));
    drop(AuditLog::open(&path, None, NOW).unwrap());
    assert_eq!(verify(&path).unwrap().lines, 5);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.lines().last().unwrap().contains("bytes of an unfinished line"),
        "{text}"
    );
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let _log = AuditLog::open(&path, None, NOW).unwrap();
    assert!(matches!(
        AuditLog::open(&path, None, NOW),
        Err(AuditError::Locked { .. })
    ));
}

#[test]
fn after_a_failed_write_nothing_more_is_taken() {
    let log = AuditLog::failing();
    assert!(matches!(log.append(&entry(), NOW), Err(AuditError::Append { .. })));
    assert!(matches!(log.append(&entry(), NOW), Err(AuditError::Broken { .. })));
    assert!(matches!(
        log.append_rationed(&entry(), NOW),
        Err(AuditError::Broken { .. })
    ));
}

#[test]
fn denied_attestations_are_rationed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = AuditLog::open(&path, None, NOW).unwrap();
    for _ in 0..1000 {
        log.append_rationed(&entry(), NOW).unwrap();
    }
    assert_eq!(log.head().lines, 101);
    log.append_rationed(&entry(), NOW + Duration::from_millis(250)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().last().unwrap().contains(r#""suppressed":900"#));
    // A clock that was set back does not stop the refill.
    for _ in 0..2 {
        log.append_rationed(&entry(), NOW - Duration::from_secs(10)).unwrap();
    }
    log.append_rationed(&entry(), NOW - Duration::from_secs(9)).unwrap();
    assert_eq!(log.head().lines, 104);
}

#[test]
fn pages_give_the_file_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = AuditLog::open(&path, None, NOW).unwrap();
    for _ in 0..2500 {
        let mut inner = log.inner.lock().unwrap();
        inner.write(&entry(), NOW).unwrap();
    }
    let whole = std::fs::read(&path).unwrap();
    let starts: Vec<usize> = std::iter::once(0)
        .chain(
            whole
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
                .map(|(at, _)| at + 1),
        )
        .collect();
    // As written, and as found on opening.
    drop(log);
    let log = AuditLog::open(&path, None, NOW).unwrap();
    let whole = [whole, std::fs::read(&path).unwrap().split_off(starts[2501])].concat();
    for from in [0, 1, 1023, 1024, 1025, 2048, 2500] {
        let page = log.page(from as u64).unwrap();
        assert!(
            whole[starts[from]..].starts_with(&page) && page.ends_with(b"\n"),
            "{from}"
        );
        assert!(
            page.len() >= MAX_PAGE || whole.len() == starts[from] + page.len(),
            "{from}"
        );
    }
    assert_eq!(log.page(2502).unwrap(), b"");
    assert_eq!(log.page(u64::MAX).unwrap(), b"");
    // Page after page gives the file again.
    let (mut read, mut lines) = (Vec::new(), 0);
    loop {
        let page = log.page(lines).unwrap();
        if page.is_empty() {
            break;
        }
        lines += page.iter().filter(|byte| **byte == b'\n').count() as u64;
        read.extend(page);
    }
    assert_eq!(read, whole);
}
