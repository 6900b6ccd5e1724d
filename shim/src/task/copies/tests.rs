use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;

fn fifo(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    path
}

fn reader(path: &Path) -> pipe::Receiver {
    pipe::OpenOptions::new().open_receiver(path).unwrap()
}

fn writer(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    bytes
}

async fn is_silent(stream: &mut DuplexStream) -> bool {
    tokio::time::timeout(Duration::from_millis(150), stream.read_u8())
        .await
        .is_err()
}

#[tokio::test]
async fn input_ends_with_close_io_and_the_last_writer_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "stdin");
    let (guest, mut process) = duplex(1024);
    let copies = Copies::default();
    copies.input(&path, guest).unwrap();
    assert!(is_silent(&mut process).await, "nobody has written yet");
    for _ in 0..2 {
        writer(&path).write_all(b"a").unwrap();
        assert_eq!(process.read_u8().await.unwrap(), b'a');
    }
    assert!(is_silent(&mut process).await, "writers come and go");
    let mut last = writer(&path);
    copies.close_input();
    last.write_all(b"late").unwrap();
    drop(last);
    assert_eq!(read(&mut process).await, b"late");
}

#[tokio::test]
async fn close_io_before_the_copy_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "stdin");
    let (guest, mut process) = duplex(1024);
    let copies = Copies::default();
    copies.close_input();
    copies.input(&path, guest).unwrap();
    assert_eq!(read(&mut process).await, b"");
}

#[tokio::test]
async fn a_fifo_that_nobody_opens_blocks_nobody_and_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "stdout");
    let (mut process, guest) = duplex(1024);
    let copies = Copies::default();
    copies.output(guest, &Place::Fifo(path)).unwrap();
    // More than a fifo holds.
    let flood = tokio::spawn(async move { process.write_all(&vec![b'x'; 1 << 20]).await });
    let start = Instant::now();
    copies.delivered(Duration::from_millis(100)).await;
    assert!(!flood.is_finished(), "the writer waits");
    copies.abort().await;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(flood.await.unwrap().is_err(), "and learns that nobody reads");
}

#[tokio::test]
async fn output_that_is_read_late_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "stdout");
    let mut reader = reader(&path);
    let (mut process, guest) = duplex(1024);
    let copies = Copies::default();
    copies.output(guest, &Place::Fifo(path)).unwrap();
    let flood = tokio::spawn(async move { process.write_all(&vec![b'x'; 1 << 20]).await });
    copies.delivered(Duration::from_millis(50)).await;
    let bytes = read(&mut reader).await;
    assert_eq!(bytes.len(), 1 << 20);
    flood.await.unwrap().unwrap();
}

#[tokio::test]
async fn output_that_moves_is_waited_for_and_output_that_rests_is_not() {
    let pause = Duration::from_millis(500);
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "stdout");
    let mut reader = reader(&path);
    let (mut process, guest) = duplex(1024);
    let copies = Copies::default();
    copies.output(guest, &Place::Fifo(path)).unwrap();
    let flood = tokio::spawn(async move { process.write_all(&vec![b'x'; 500_000]).await });
    let slow = tokio::spawn(async move {
        let (mut buffer, mut count) = (vec![0; 50_000], 0);
        loop {
            tokio::time::sleep(pause / 5).await;
            match reader.read(&mut buffer).await.unwrap() {
                0 => return count,
                read => count += read,
            }
        }
    });
    let start = Instant::now();
    copies.settled(pause, Duration::from_secs(20)).await;
    assert!(copies.delivered(Duration::ZERO).await, "{:?}", start.elapsed());
    assert!(start.elapsed() > pause, "the reader was not slow");
    flood.await.unwrap().unwrap();
    assert_eq!(slow.await.unwrap(), 500_000);

    let path = fifo(dir.path(), "unread");
    let (mut process, guest) = duplex(1024);
    let copies = Copies::default();
    copies.output(guest, &Place::Fifo(path)).unwrap();
    let flood = tokio::spawn(async move { process.write_all(&vec![b'x'; 500_000]).await });
    let start = Instant::now();
    copies.settled(pause, Duration::from_secs(20)).await;
    assert!(start.elapsed() < Duration::from_secs(10), "nobody reads");
    copies.abort().await;
    assert!(flood.await.unwrap().is_err());
}

#[tokio::test]
async fn what_was_deleted_is_read_to_the_end_by_whoever_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "stdout");
    let mut reader = reader(&path);
    let (mut process, guest) = duplex(1024);
    let copies = Copies::default();
    copies.output(guest, &Place::Fifo(path)).unwrap();
    let flood = tokio::spawn(async move { process.write_all(&vec![b'x'; 1 << 20]).await });
    copies.let_go();
    assert!(!copies.delivered(Duration::from_millis(50)).await);
    assert_eq!(read(&mut reader).await.len(), 1 << 20);
    flood.await.unwrap().unwrap();
    assert!(copies.delivered(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn what_was_deleted_ends_without_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "stdout");
    let (mut process, guest) = duplex(1024);
    let copies = Copies::default();
    copies.output(guest, &Place::Fifo(path)).unwrap();
    let flood = tokio::spawn(async move { process.write_all(&vec![b'x'; 1 << 20]).await });
    assert!(!copies.delivered(Duration::from_millis(50)).await);
    copies.let_go();
    assert!(copies.delivered(Duration::from_secs(4)).await);
    assert!(flood.await.unwrap().is_err());
}

#[tokio::test]
async fn what_was_deleted_ends_when_the_guest_has_no_more_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path(), "stdout");
    let reader = reader(&path);
    // A child that outlives its parent holds the stream open.
    let (mut process, guest) = duplex(1024);
    let copies = Copies::default();
    copies.output(guest, &Place::Fifo(path)).unwrap();
    process.write_all(b"parent's last").await.unwrap();
    assert!(!copies.delivered(Duration::from_millis(50)).await);
    copies.let_go();
    assert!(copies.delivered(REST * 2).await);
    let mut text = [0; 32];
    assert_eq!(reader.try_read(&mut text).unwrap(), 13);
}

#[tokio::test]
async fn files_are_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/log");
    for text in [&b"one\n"[..], b"two\n"] {
        let copies = Copies::default();
        copies.output(text, &Place::File(path.clone())).unwrap();
        copies.delivered(Duration::from_secs(10)).await;
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
}

#[tokio::test]
async fn a_path_that_is_no_fifo_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let copies = Copies::default();
    let place = Place::Fifo(dir.path().join("absent"));
    assert!(copies.output(tokio::io::empty(), &place).is_err());
    assert!(copies.input(&dir.path().join("absent"), tokio::io::sink()).is_err());
}
