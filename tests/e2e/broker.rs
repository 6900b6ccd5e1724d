//! The key broker away, silent, or talking nonsense. One that is not the pinned one: `attacks`, T7 and T10. Replay,
//! unknown keys and the like: `kbs/tests`, and `attacks`, T17.
use anyhow::Result;
use cella_tests::attacker::Peer;

use crate::{
    Case,
    fixture::{Fixture, HELLO, refused},
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("the_broker_is_down", down),
    ("the_broker_never_answers", silent),
    ("the_broker_answers_garbage", garbage),
    ("the_key_has_gone", key_gone),
];

fn with_broker(f: &Fixture, url: &str, words: &[&str]) -> Result<()> {
    let line = format!("echo {HELLO}");
    let mut workload = f.shell(&line);
    workload.kbs = url.to_owned();
    let policy = f.allowed(&workload)?;
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &line).go(&f.stack)?;
    refused(&out, words)?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)
}

fn down(f: &Fixture) -> Result<()> {
    let url = Peer::silent()?.guest_url();
    with_broker(f, &url, &[&url])
}

fn silent(f: &Fixture) -> Result<()> {
    let peer = Peer::silent()?;
    with_broker(f, &peer.guest_url(), &[&peer.guest_url()])
}

fn garbage(f: &Fixture) -> Result<()> {
    let peer = Peer::garbage_broker(&f.stack, b"\x00\xff{\"nonce\":[[[[[[")?;
    with_broker(f, &peer.guest_url(), &[&peer.guest_url()])
}

fn key_gone(f: &Fixture) -> Result<()> {
    let line = format!("echo {HELLO}");
    let mut workload = f.shell(&line);
    workload.image_keys = vec![
        "kbs:///test/no-such-key/1".to_owned(),
        crate::fixture::IMAGE_KEY.to_owned(),
    ];
    let policy = f.allowed(&workload)?;
    let out = f.start(&policy, &line).go(&f.stack)?;
    refused(&out, &["kbs:///test/no-such-key/1"])
}
