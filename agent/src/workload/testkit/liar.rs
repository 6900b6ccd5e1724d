//! A registry that lies: real answers, changed on their way.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// An answer of the real registry.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// As in `206 Partial Content`.
    pub(crate) status: String,
    /// Value of `Content-Range`.
    pub(crate) range: Option<String>,
    /// Value of `Content-Length`; where it is not there, the connection's end is the body's.
    pub(crate) length: Option<usize>,
    pub(crate) body: Vec<u8>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// First and last byte of the range.
    pub(crate) range: Option<(usize, usize)>,
}

impl Question {
    /// Whether it is for a part of a blob that is longer than a header.
    pub(crate) fn is_bulk(&self) -> bool {
        self.range.is_some_and(|(first, last)| last - first > 100)
    }
}

/// Passes each question on, and changes what comes back. One question a connection.
pub(crate) struct Liar {
    pub(crate) port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Liar {
    pub(crate) async fn start(to: u16, lie: impl Fn(&Question, &mut Answer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lie = Arc::new(lie);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let lie = Arc::clone(&lie);
                tokio::spawn(async move { serve(client, to, &*lie).await });
            }
        });
        Self { port, task }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, to: u16, lie: &(dyn Fn(&Question, &mut Answer) + Send + Sync)) {
    let Some(head) = head(&mut client).await else { return };
    let range = header(&head, "range").map(|value| {
        let (first, last) = value.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        (first.parse().unwrap(), last.parse().unwrap())
    });
    let mut server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
    let asked = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(asked.as_bytes()).await.unwrap();
    let Some(answered) = self::head(&mut server).await else {
        return;
    };
    let mut body = Vec::new();
    server.read_to_end(&mut body).await.unwrap();
    let status = answered.lines().next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    let mut answer = Answer {
        status: status.to_owned(),
        range: header(&answered, "content-range").map(str::to_owned),
        length: Some(body.len()),
        body,
    };
    lie(&Question { range }, &mut answer);
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.status);
    if let Some(range) = &answer.range {
        head += &format!("Content-Range: {range}\r\n");
    }
    if let Some(length) = answer.length {
        head += &format!("Content-Length: {length}\r\n");
    }
    // Nobody listens any more when the answer's head was enough to refuse it.
    let _ = client.write_all(format!("{head}\r\n").as_bytes()).await;
    let _ = client.write_all(&answer.body).await;
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}
