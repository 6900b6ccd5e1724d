//! How fast a sealed file becomes locked memory, against what cannot be beaten in the same run. Prints one line of JSON.
//!
//! `model_load FOLDER MIB RUNS [bare]`: makes FOLDER/m.sealed of MIB MiB and, unless `bare`, its plaintext FOLDER/m; mounts the agent's
//! store for models at FOLDER/models; then loads RUNS times each, in turn, into memory as the agent's: new file, mapping, 2 MiB pages,
//! content, read-only, locked. Figures are lists, in 10⁹ bytes of plaintext a second:
//!
//! - `limit`, `limit_digest`: AES-256-GCM alone, and with BLAKE3 of the plaintext, in the cache, on all processors;
//! - `limit_memory`, `limit_digest_memory`: the same of ciphertext that comes from memory, while the plaintext stays in the cache;
//! - `sealed`, `sealed_fresh`: opened out of place from the page cache, pages populated before the time, or within;
//! - `in_place`, `in_place_fresh`: read to the final address and opened there, as what comes over the network is;
//! - `digest`: as `sealed`, and BLAKE3 of the plaintext;
//! - `copy`, `copy_fresh`: plaintext, left as it is;
//! - `cpu_s_per_gib`: processor seconds of `sealed_fresh`, user and system; `populate`: pages alone.
//!
//! What was loaded is compared with what was sealed, outside the time.
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use cella_seal::stream::{HEADER, Header, Layout, Opener, SealWriter, Segment, TAG};
use cella_seal::tree::FileTree;
use cella_seal::{DataKey, Secret, place};
use serde_json::{Map, Value, json};

use limits::From;
use region::{Piece, Region, Settled, settled_bytes};
use store::Store;
use window::Window;

mod limits;
#[allow(dead_code, reason = "the agent's own module, of which this needs a part")]
#[path = "../../src/workload/model/region.rs"]
mod region;
#[allow(dead_code, reason = "the agent's own module, of which this needs a part")]
#[path = "../../src/workload/store.rs"]
mod store;
mod window;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Segments that one thread opens after another.
const GROUP: usize = 64;

const MIB: usize = 1 << 20;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, mib, runs, bare) = match arguments.as_slice() {
        [folder, mib, runs] => (folder, mib.parse()?, runs.parse()?, false),
        [folder, mib, runs, word] if word == "bare" => (folder, mib.parse()?, runs.parse()?, true),
        _ => return Err("usage: model_load FOLDER MIB RUNS [bare]".into()),
    };
    let report = report(Path::new(folder), mib, runs, bare)?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

fn report(folder: &Path, mib: usize, runs: usize, bare: bool) -> Outcome<Value> {
    let bench = Bench::new(folder, mib, bare)?;
    let mut figures: Map<String, Value> = Map::new();
    let mut note = |name: &str, figure: f64| {
        let list = figures.entry(name).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(json!((figure * 1000.0).round() / 1000.0));
        }
    };
    // The first pages a virtual machine touches may cost it a fault on its own host: not what is measured.
    bench.load(How::InPlace, false)?;
    for _ in 0..runs {
        let mut ciphers = |name, from, hash| {
            note(name, limits::ciphers(bench.threads, mib.min(1024), from, hash)?);
            Outcome::Ok(())
        };
        ciphers("limit", From::Cache, false)?;
        ciphers("limit_memory", From::Memory, false)?;
        ciphers("limit_digest", From::Cache, true)?;
        ciphers("limit_digest_memory", From::Memory, true)?;
        note("populate", bench.populate()?);
        for (name, how, ahead) in [
            ("sealed", How::Window, true),
            ("sealed_fresh", How::Window, false),
            ("in_place", How::InPlace, true),
            ("in_place_fresh", How::InPlace, false),
            ("digest", How::Digest, true),
            ("copy", How::Copy, true),
            ("copy_fresh", How::Copy, false),
        ] {
            if how == How::Copy && bench.plain.is_none() {
                continue;
            }
            let (rate, cpu) = bench.load(how, ahead)?;
            note(name, rate);
            if name == "sealed_fresh" {
                note("cpu_s_per_gib", cpu / (mib as f64 / 1024.0));
            }
        }
    }
    Ok(json!({ "mib": mib, "threads": bench.threads, "runs": runs, "figures": figures }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Out of place.
    Window,
    /// Out of place, and hashed.
    Digest,
    /// Read, then opened in place.
    InPlace,
    /// Read only, from the plaintext.
    Copy,
}

struct Bench {
    store: Store,
    sealed: File,
    plain: Option<File>,
    key: DataKey,
    place: Vec<u8>,
    layout: Layout,
    threads: usize,
    /// What every MiB of the plaintext is, but for its first 8 bytes, which number it.
    block: Vec<u8>,
}

impl Bench {
    fn new(folder: &Path, mib: usize, bare: bool) -> Outcome<Self> {
        // Random enough for any compression, and the same each time.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let block: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(MIB / 8)
        .flatten()
        .collect();
        let mut new = OpenOptions::new();
        new.read(true).write(true).create(true).truncate(true);
        let (sealed, key) = (new.open(folder.join("m.sealed"))?, Secret::from_slice(&[7; 32])?);
        let place = place::associated_data("bench", "model.gguf", 1)?;
        let plain = (!bare).then(|| new.open(folder.join("m"))).transpose()?;
        let mut writer = SealWriter::new(&key, &place, BufWriter::new(sealed.try_clone()?))?;
        for index in 0..u64::try_from(mib)? {
            let mut block = block.clone();
            number(&mut block, index);
            writer.write_all(&block)?;
            if let Some(plain) = &plain {
                plain.write_all_at(&block, index * MIB as u64)?;
            }
        }
        let (mut out, layout) = writer.finish()?;
        out.flush()?;
        let room = layout.plaintext_len().next_multiple_of(2 << 20) + (4 << 20);
        Ok(Self {
            store: Store::for_models(&folder.join("models"), room)?,
            sealed,
            plain,
            key,
            place,
            layout,
            threads: thread::available_parallelism()?.get(),
            block,
        })
    }

    /// Pages alone.
    fn populate(&self) -> Outcome<f64> {
        let staging = self.store.stage()?;
        let file = new_file(staging.path())?;
        let region = Region::create(&file, usize::try_from(self.layout.plaintext_len())?)?;
        let begun = Instant::now();
        self.take_pages(&region)?;
        Ok(self.rate(begun))
    }

    fn take_pages(&self, region: &Region) -> Outcome<()> {
        let next = AtomicUsize::new(0);
        on_each(self.threads, || {
            while let Some(part) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|part| *part < region.parts()) {
                region.populate(part)?;
            }
            Ok(())
        })
    }

    /// Loads once: GB/s, and processor seconds.
    fn load(&self, how: How, ahead: bool) -> Outcome<(f64, f64)> {
        let staging = self.store.stage()?;
        let file = new_file(staging.path())?;
        let early = Region::create(&file, usize::try_from(self.layout.plaintext_len())?)?;
        if ahead {
            self.take_pages(&early)?;
        }
        let (cpu, begun) = (cpu_seconds()?, Instant::now());
        let mut region = early;
        if !ahead {
            self.take_pages(&region)?;
        }
        match how {
            How::Window => self.through_windows(&file, &mut region, None)?,
            How::Digest => {
                let tree = FileTree::new(&self.layout);
                self.through_windows(&file, &mut region, Some(&tree))?;
                tree.finish().ok_or("no digest")?;
            }
            How::InPlace => self.in_place(&mut region)?,
            How::Copy => self.copied(&mut region)?,
        }
        let frozen = region.freeze()?;
        let (rate, cpu) = (self.rate(begun), cpu_seconds()? - cpu);
        self.compare(&file)?;
        drop(frozen);
        Ok((rate, cpu))
    }

    fn opener(&self) -> Outcome<Opener> {
        let mut header = [0; HEADER];
        self.sealed.read_exact_at(&mut header, 0)?;
        Ok(Opener::new(
            &self.key,
            &Header::parse(&header)?,
            &self.place,
            self.layout,
        )?)
    }

    fn through_windows(&self, model: &File, region: &mut Region, tree: Option<&FileTree>) -> Outcome<()> {
        let (opener, segments) = (self.opener()?, self.layout.iter().collect::<Vec<_>>());
        let groups: Vec<_> = segments.chunks(GROUP).collect();
        let lengths = groups
            .iter()
            .map(|group| group.iter().map(Segment::plaintext_len).sum());
        let pieces = region.pieces(lengths)?;
        let settled: Vec<OnceLock<Settled>> = groups.iter().map(|_| OnceLock::new()).collect();
        // The group with the last segment first: then the length is genuine.
        let mut work: Vec<_> = groups.iter().enumerate().zip(pieces).collect();
        work.rotate_right(1);
        let work = Mutex::new(work.into_iter());
        let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
        on_each(self.threads, || {
            while let Some(((index, group), piece)) = next() {
                self.group(model, &opener, group, piece, tree, (index, &settled))?;
            }
            Ok(())
        })?;
        Ok(opener.finish()?)
    }

    fn group(
        &self,
        model: &File,
        opener: &Opener,
        group: &[Segment],
        mut piece: Piece,
        tree: Option<&FileTree>,
        (index, settled): (usize, &[OnceLock<Settled>]),
    ) -> Outcome<()> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return Ok(());
        };
        let plaintext = first.plaintext.start..last.plaintext.end;
        let ciphertext = first.ciphertext.start..last.ciphertext.end;
        let mut window = Window::new(model, plaintext, &self.sealed, ciphertext)?;
        let hash = |segment: &Segment, window: &Window| {
            for leaf in tree
                .into_iter()
                .flat_map(|tree| tree.opened(segment).map(move |leaf| (tree, leaf)))
            {
                let (tree, leaf) = leaf;
                let bytes = match window.plaintext(&leaf.range) {
                    Some(bytes) => bytes,
                    // It has a part of a neighbour's plaintext, which is in its place.
                    None => {
                        let range = usize::try_from(leaf.range.start)?..usize::try_from(leaf.range.end)?;
                        let begins_before = leaf.range.start < first.plaintext.start;
                        let from = if begins_before { index - 1 } else { index };
                        let both: Option<Vec<_>> = settled
                            .get(from..from + 2)
                            .map(|both| both.iter().filter_map(OnceLock::get).collect());
                        settled_bytes(both.ok_or("no neighbour")?, range).ok_or("a neighbour is not there")?
                    }
                };
                tree.hash(&leaf, bytes);
            }
            Outcome::Ok(())
        };
        for segment in group {
            let (start, body, end) = (segment.plaintext.start, segment.body().start, segment.ciphertext.end);
            let (bytes, at) = window.between(start, body, end).ok_or("outside the window")?;
            opener.open_within(segment.index, bytes, at)?;
            if segment.index != first.index && segment.index != last.index {
                hash(segment, &window)?;
            }
        }
        if let Some((at, edge)) = window.edge() {
            piece.get_mut(at..).ok_or("edge")?.copy_from_slice(edge);
        }
        if tree.is_some() {
            let _ = settled.get(index).ok_or("group")?.set(piece.settle());
            hash(first, &window)?;
            if first.index != last.index {
                hash(last, &window)?;
            }
        }
        Ok(())
    }

    fn in_place(&self, region: &mut Region) -> Outcome<()> {
        let opener = self.opener()?;
        self.by_segment(region, |segment, body| {
            let mut tag = [0; TAG];
            self.sealed.read_exact_at(body, segment.body().start)?;
            self.sealed.read_exact_at(&mut tag, segment.tag().start)?;
            Ok(opener.open_in_place(segment.index, body, &tag)?)
        })?;
        Ok(opener.finish()?)
    }

    fn copied(&self, region: &mut Region) -> Outcome<()> {
        let plain = self.plain.as_ref().ok_or("no plaintext")?;
        self.by_segment(region, |segment, body| {
            Ok(plain.read_exact_at(body, segment.plaintext.start)?)
        })
    }

    fn by_segment(&self, region: &mut Region, fill: impl Fn(&Segment, &mut [u8]) -> Outcome<()> + Sync) -> Outcome<()> {
        let pieces = region.pieces(self.layout.iter().map(|segment| segment.plaintext_len()))?;
        let mut segments: Vec<(Segment, Piece)> = self.layout.iter().zip(pieces).collect();
        segments.rotate_right(1);
        let segments = Mutex::new(segments.into_iter());
        let next = || segments.lock().unwrap_or_else(PoisonError::into_inner).next();
        on_each(self.threads, || {
            while let Some((segment, mut piece)) = next() {
                fill(&segment, &mut piece)?;
            }
            Ok(())
        })
    }

    fn rate(&self, begun: Instant) -> f64 {
        self.layout.plaintext_len() as f64 / begun.elapsed().as_secs_f64() / 1e9
    }

    fn compare(&self, loaded: &File) -> Outcome<()> {
        let next = AtomicUsize::new(0);
        let blocks = usize::try_from(self.layout.plaintext_len())? / MIB;
        on_each(self.threads, || {
            let (mut expected, mut found) = (self.block.clone(), vec![0; MIB]);
            while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < blocks) {
                loaded.read_exact_at(&mut found, (index * MIB) as u64)?;
                number(&mut expected, index as u64);
                if expected != found {
                    return Err(format!("MiB {index} of what was loaded is not what was sealed").into());
                }
            }
            Ok(())
        })
    }
}

fn number(block: &mut [u8], index: u64) {
    for (to, from) in block.iter_mut().zip(index.to_le_bytes()) {
        *to = from;
    }
}

fn new_file(folder: &Path) -> Outcome<File> {
    let mut new = OpenOptions::new();
    new.read(true).write(true).create_new(true);
    Ok(new.open(folder.join("model.gguf"))?)
}

/// Processor seconds of this process, user and system.
fn cpu_seconds() -> Outcome<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Runs `work` on so many threads at the same time.
fn on_each(threads: usize, work: impl Fn() -> Outcome<()> + Sync) -> Outcome<()> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })
}
