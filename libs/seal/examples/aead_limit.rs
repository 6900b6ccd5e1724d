//! How fast AES-256-GCM is on this machine, and how much of that an `Opener` reaches. Prints one line of JSON.
//!
//! `aead_limit [MIB] [RUNS]`: size of the sealed buffer, default 256 MiB, and number of runs, default 5. Figures are
//! medians in 10⁹ bytes of plaintext a second, for one thread and for all cores:
//!
//! - `gcm_in_cache`: opening one 1 MiB segment again and again in place, copying excluded. The limit.
//! - `opener_to_memory`: copying a sealed buffer to its final place in memory and opening it there. Pages of both are
//!   there beforehand.
//! - `copy_to_memory`: the same without opening, as a plain copy.
use std::error::Error;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cella_seal::stream::{Header, Layout, Opener, SEGMENT, SealWriter, Segment};
use cella_seal::{DataKey, place};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (mib, runs) = (number(256)?.max(1), number(5)?.max(1));
    let cores = std::thread::available_parallelism()?.get();
    let sealed = Sealed::new(mib)?;
    let mut results = Vec::new();
    for threads in if cores > 1 { vec![1, cores] } else { vec![1] } {
        results.push(json!({
            "threads": threads,
            "gcm_in_cache": median(runs, || gcm_in_cache(threads, mib))?,
            "opener_to_memory": median(runs, || sealed.open(threads))?,
            "copy_to_memory": median(runs, || sealed.copy(threads))?,
        }));
    }
    let report: Value = json!({ "unit": "GB/s", "mib": mib, "runs": runs, "cores": cores, "results": results });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

/// A sealed model in memory, and where it goes.
struct Sealed {
    key: DataKey,
    associated_data: Vec<u8>,
    header: Header,
    layout: Layout,
    ciphertext: Vec<u8>,
}

impl Sealed {
    fn new(mib: usize) -> Outcome<Self> {
        let (key, associated_data) = (DataKey::random()?, place::associated_data("bench", "model.gguf", 1)?);
        let mut writer = SealWriter::new(&key, &associated_data, Vec::with_capacity((mib + 1) * SEGMENT))?;
        let piece = vec![0x5a; SEGMENT];
        (0..mib).try_for_each(|_| writer.write_all(&piece))?;
        let (ciphertext, layout) = writer.finish()?;
        let header = Header::parse(ciphertext.first_chunk().ok_or("no header")?)?;
        Ok(Self {
            key,
            associated_data,
            header,
            layout,
            ciphertext,
        })
    }

    fn open(&self, threads: usize) -> Outcome<f64> {
        let opener = Opener::new(&self.key, &self.header, &self.associated_data, self.layout)?;
        let took = self.place(threads, |segment, body| {
            let tag = self.bytes(&segment.tag())?.first_chunk().ok_or("no tag")?;
            Ok(opener.open_in_place(segment.index, body, tag)?)
        })?;
        opener.finish()?;
        Ok(rate(self.layout.plaintext_len(), took))
    }

    fn copy(&self, threads: usize) -> Outcome<f64> {
        Ok(rate(self.layout.plaintext_len(), self.place(threads, |_, _| Ok(()))?))
    }

    /// Copies each segment's body to its place, then does `then` with it.
    fn place(&self, threads: usize, then: impl Fn(&Segment, &mut [u8]) -> Outcome<()> + Sync) -> Outcome<Duration> {
        let mut memory = vec![0xff; usize::try_from(self.layout.plaintext_len())?];
        let mut rest = memory.as_mut_slice();
        let mut places = Vec::new();
        for segment in self.layout.iter() {
            let (body, tail) = std::mem::take(&mut rest).split_at_mut(segment.plaintext_len());
            rest = tail;
            places.push((segment, body));
        }
        let queue = Mutex::new(places.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        on_threads(threads, || {
            while let Some((segment, body)) = next() {
                body.copy_from_slice(self.bytes(&segment.body())?);
                then(&segment, body)?;
            }
            Ok(())
        })
    }

    fn bytes(&self, range: &std::ops::Range<u64>) -> Outcome<&[u8]> {
        let range = usize::try_from(range.start)?..usize::try_from(range.end)?;
        Ok(self.ciphertext.get(range).ok_or("segment outside the buffer")?)
    }
}

/// Each thread opens `mib` times a segment of its own that stays in its cache.
fn gcm_in_cache(threads: usize, mib: usize) -> Outcome<f64> {
    let slowest = Mutex::new(Duration::ZERO);
    on_threads(threads, || {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "key")?);
        let nonce = || Nonce::assume_unique_for_key([0; 12]);
        let mut sealed = vec![0x5a; SEGMENT];
        let tag = key
            .seal_in_place_separate_tag(nonce(), Aad::empty(), &mut sealed)
            .map_err(|_| "seal")?;
        let tag: [u8; 16] = tag.as_ref().try_into()?;
        let mut buffer = sealed.clone();
        let mut took = Duration::ZERO;
        for _ in 0..mib {
            buffer.copy_from_slice(&sealed);
            let start = Instant::now();
            key.open_in_place_separate_tag(nonce(), Aad::empty(), Tag::from(tag), &mut buffer, 0..)
                .map_err(|_| "open")?;
            took += start.elapsed();
        }
        let mut slowest = slowest.lock().unwrap_or_else(PoisonError::into_inner);
        *slowest = took.max(*slowest);
        Ok(())
    })?;
    let slowest = *slowest.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(rate((threads * mib * SEGMENT) as u64, slowest))
}

/// Runs `work` on each of `threads` threads and gives the time that all took together.
fn on_threads(threads: usize, work: impl Fn() -> Outcome<()> + Sync) -> Outcome<Duration> {
    let start = Instant::now();
    let work = &work;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })?;
    Ok(start.elapsed())
}

fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / 1e9
}

fn median(runs: usize, run: impl Fn() -> Outcome<f64>) -> Outcome<f64> {
    let mut rates = (0..runs).map(|_| run()).collect::<Outcome<Vec<f64>>>()?;
    rates.sort_by(f64::total_cmp);
    let middle = rates.get(rates.len() / 2).ok_or("no runs")?;
    Ok((middle * 100.0).round() / 100.0)
}
