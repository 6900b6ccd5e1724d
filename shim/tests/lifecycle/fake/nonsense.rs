//! A guest that speaks ttrpc as it should until it sees a certain request, and nonsense from then on: mode
//! `nonsense:<what>:<method>`. What it says is the table in [`said`].

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

/// A frame's header: length, stream, type and flags.
const HEADER: usize = 10;
const REQUEST: u8 = 1;
const ANSWER: u8 = 2;
const DATA: u8 = 3;
/// Stream numbers that no client of this protocol gives.
const STRANGE: [u32; 3] = [0, 2, u32::MAX];

/// What the backend answers instead of `OK <port>`, if the mode wants that.
pub(super) fn handshake(mode: &str) -> Option<Vec<u8>> {
    match mode {
        "no-handshake" => Some(b"\x00\xffNO\n".to_vec()),
        "endless-handshake" => Some(vec![b'O'; 1 << 20]),
        _ => None,
    }
}

/// The server's end of a connection whose other end is `shim`.
pub(super) fn between(shim: UnixStream, mode: &str) -> UnixStream {
    let Some((what, method)) = mode.strip_prefix("nonsense:").and_then(|rest| rest.split_once(':')) else {
        return shim;
    };
    let (ours, servers) = UnixStream::pair().unwrap();
    let (from_shim, to_shim) = shim.into_split();
    let (from_server, to_server) = ours.into_split();
    let (seen, trigger) = oneshot::channel();
    tokio::spawn(requests(from_shim, to_server, method.to_owned(), seen));
    tokio::spawn(answers(from_server, to_shim, what.to_owned(), trigger));
    servers
}

/// Passes requests on; says on which stream `method` was called first.
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, method: String, seen: oneshot::Sender<u32>) {
    let mut seen = Some(seen);
    while let Some(frame) = frame(&mut from).await {
        let called = frame.windows(method.len()).any(|window| window == method.as_bytes());
        if called && let Some(seen) = seen.take() {
            // From here on the honest server hears nothing any more.
            let _ = seen.send(u32::from_be_bytes(frame[4..8].try_into().unwrap()));
        }
        if seen.is_some() && to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, what: String, trigger: oneshot::Receiver<u32>) {
    let honest = async {
        while let Some(frame) = frame(&mut from).await {
            to.write_all(&frame).await.unwrap();
        }
    };
    let stream = tokio::select! {
        biased;
        stream = trigger => stream,
        () = honest => return,
    };
    let Ok(stream) = stream else { return };
    let _ = to.write_all(&said(&what, stream)).await;
    match what.as_str() {
        "cut" => return,
        "huge" => while to.write_all(&[0; 4096]).await.is_ok() {},
        _ => {}
    }
    // The connection stays, and nothing more comes.
    std::future::pending::<()>().await;
}

/// The nonsense, as an answer on `stream` where it is one.
fn said(what: &str, stream: u32) -> Vec<u8> {
    let answer = |payload: &[u8]| framed(ANSWER, stream, payload);
    match what {
        "huge" => header(ANSWER, stream, u32::MAX),
        "cut" => header(ANSWER, stream, 100)[..7].to_vec(),
        "unasked" => STRANGE
            .repeat(1000)
            .iter()
            .flat_map(|id| framed(ANSWER, *id, b""))
            .collect(),
        "data" => framed(DATA, stream, b"x"),
        "request" => framed(REQUEST, stream, b"x"),
        "no-type" => framed(0xee, stream, b"x"),
        "no-protobuf" => answer(&[0xff; 4096]),
        // A field of 2 GiB in a frame of six bytes.
        "enormous-field" => answer(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x07]),
        // A status of 60000 details, each of two bytes here and of many more once decoded; and not "OK".
        "many-details" => {
            let status = [&[0x08, 0x0d][..], &[0x1a, 0x00].repeat(60_000)].concat();
            answer(&[&[0x0a][..], &varint(status.len()), &status].concat())
        }
        other => panic!("no nonsense {other}"),
    }
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(0x80 | u8::try_from(number & 0x7f).unwrap());
        number >>= 7;
    }
    bytes.push(number.try_into().unwrap());
    bytes
}

fn header(kind: u8, stream: u32, length: u32) -> Vec<u8> {
    [&length.to_be_bytes()[..], &stream.to_be_bytes(), &[kind, 0]].concat()
}

fn framed(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&header(kind, stream, payload.len().try_into().unwrap())[..], payload].concat()
}

/// The next frame, whole.
async fn frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    from.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
    frame.resize(HEADER + usize::try_from(length).unwrap(), 0);
    from.read_exact(&mut frame[HEADER..]).await.ok()?;
    Some(frame)
}
