use tokio::{
    net::{UnixListener, UnixStream, unix::pipe::pipe},
    time::advance,
};

use cella_policy::{Policy, check::Turn};

use super::*;
use crate::pod::Events;

/// Of a pod with a container that must run.
fn ingress() -> Ingress {
    let policy = Policy::parse(include_str!("../../tests/common/policy.toml")).unwrap();
    Ingress::new(&policy, Events::new())
}

fn open() -> Ingress {
    let ingress = ingress();
    ingress.note("server", Turn::Running);
    ingress
}

fn streams() -> Streams {
    Streams::new(Logger::root(slog::Discard, slog::o!()))
}

#[async_trait::async_trait]
impl StreamListener for UnixListener {
    type Connection = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

async fn claim(streams: &Streams, number: u32) -> UnixStream {
    let (mut host, guest) = UnixStream::pair().unwrap();
    let streams = streams.clone();
    tokio::spawn(async move { streams.serve(guest).await });
    host.write_all(&number.to_le_bytes()).await.unwrap();
    host
}

#[tokio::test]
async fn output_flows_and_is_drained_after_the_end() {
    let streams = streams();
    let (mut process, agent) = pipe().unwrap();
    let number = streams.offer(Pipe::Output(agent));
    let mut host = claim(&streams, number).await;
    process.write_all(&[7; 40_000]).await.unwrap();
    drop(process);
    let mut read = Vec::new();
    host.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, [7; 40_000]);
}

#[tokio::test]
async fn input_flows_and_its_end_is_the_end_of_file() {
    let streams = streams();
    let (agent, mut process) = pipe().unwrap();
    let mut host = claim(&streams, streams.offer(Pipe::Input(agent, open()))).await;
    host.write_all(b"question").await.unwrap();
    host.shutdown().await.unwrap();
    let mut read = Vec::new();
    process.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"question");
}

#[tokio::test]
async fn t1_input_waits_until_everybody_is_there() {
    let (streams, ingress) = (streams(), ingress());
    let (agent, mut process) = pipe().unwrap();
    let mut host = claim(&streams, streams.offer(Pipe::Input(agent, ingress.clone()))).await;
    host.write_all(b"question").await.unwrap();
    let mut read = [0; 8];
    let early = timeout(Duration::from_millis(100), process.read(&mut read)).await;
    assert!(early.is_err(), "{early:?}");
    ingress.note("server", Turn::Running);
    process.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"question");
    ingress.note("server", Turn::Paused);
    host.write_all(b"another.").await.unwrap();
    let late = timeout(Duration::from_millis(100), process.read(&mut read)).await;
    assert!(late.is_err(), "{late:?}");
    ingress.note("server", Turn::Running);
    process.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"another.");
}

#[tokio::test]
async fn an_end_of_input_waits_for_nobody() {
    let streams = streams();
    let (agent, mut process) = pipe().unwrap();
    drop(claim(&streams, streams.offer(Pipe::Input(agent, ingress()))).await);
    assert_eq!(process.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stream_is_taken_once_and_unknown_ones_are_closed() {
    let streams = streams();
    let (_process, agent) = pipe().unwrap();
    let number = streams.offer(Pipe::Output(agent));
    let _first = claim(&streams, number).await;
    for wrong in [0, number + 1, u32::MAX] {
        assert_eq!(claim(&streams, wrong).await.read(&mut [0; 1]).await.unwrap(), 0);
    }
    assert_eq!(claim(&streams, number).await.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_host_that_leaves_does_not_stop_the_container() {
    let streams = streams();
    let (mut process, agent) = pipe().unwrap();
    let host = claim(&streams, streams.offer(Pipe::Output(agent))).await;
    drop(host);
    process.write_all(&vec![1; 1 << 20]).await.unwrap();
}

#[tokio::test]
async fn a_slow_host_stops_the_container_and_loses_nothing() {
    let streams = streams();
    let (mut process, agent) = pipe().unwrap();
    let mut host = claim(&streams, streams.offer(Pipe::Output(agent))).await;
    let writer = tokio::spawn(async move { process.write_all(&vec![1; 4 << 20]).await });
    tokio::task::yield_now().await;
    assert!(!writer.is_finished());
    let mut read = Vec::new();
    host.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), 4 << 20);
    writer.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_stream_is_held_for_a_host_that_reads_late() {
    for (bytes, held) in [(50_000, false), (100_000, true)] {
        let streams = streams();
        let (mut process, agent) = pipe().unwrap();
        let number = streams.offer(Pipe::Output(agent));
        let (mut host, guest) = UnixStream::pair().unwrap();
        host.write_all(&number.to_le_bytes()).await.unwrap();
        tokio::spawn(async move { process.write_all(&vec![7; bytes]).await });
        let begin = Instant::now();
        streams.serve(guest).await;
        assert_eq!(begin.elapsed() >= HOLD_LIMIT, held, "{bytes}");
        let mut read = Vec::new();
        host.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unclaimed_stream_is_let_go() {
    let streams = streams();
    let (mut process, agent) = pipe().unwrap();
    let number = streams.offer(Pipe::Output(agent));
    tokio::task::yield_now().await;
    advance(CLAIM_LIMIT + Duration::from_secs(1)).await;
    process.write_all(&vec![1; 1 << 20]).await.unwrap();
    assert!(!streams.withdraw(number));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_names_no_stream_is_closed() {
    let streams = streams();
    let (mut host, guest) = UnixStream::pair().unwrap();
    host.write_all(&[1, 0]).await.unwrap();
    streams.serve(guest).await;
    assert_eq!(host.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn connections_are_served_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let streams = streams();
    let server = tokio::spawn(listen(listener, streams.clone()));
    let mut hosts = Vec::new();
    let mut processes = Vec::new();
    for _ in 0..8 {
        let (process, agent) = pipe().unwrap();
        let number = streams.offer(Pipe::Output(agent));
        let mut host = UnixStream::connect(dir.path().join("s")).await.unwrap();
        host.write_all(&number.to_le_bytes()).await.unwrap();
        hosts.push(host);
        processes.push(process);
    }
    for (index, mut process) in (0_u8..8).zip(processes).rev() {
        process.write_all(&[index]).await.unwrap();
    }
    for (index, mut host) in (0_u8..).zip(hosts) {
        assert_eq!(host.read_u8().await.unwrap(), index);
    }
    server.abort();
}
