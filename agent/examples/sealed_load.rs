//! How fast a sealed file becomes locked memory, without network and registry. Prints one line of JSON, in 10⁹ bytes of plaintext a second.
//!
//! `sealed_load PLAIN SEALED FOLDER`: seals PLAIN into SEALED under a fresh key, mounts the agent's store for models at FOLDER (unmounted at
//! the end), and loads into it with the agent's own memory. What is timed is what the agent does for a file: new file, mapping, 2 MiB pages,
//! content, read-only, locked. The content is read to its final address by position:
//!
//! - `sealed`, `sealed_1_thread`: ciphertext, opened there segment by segment, the last one first, by all processors or by one;
//! - `copy`: plaintext, left as it is, by all processors.
//!
//! What was loaded is compared with PLAIN, outside the time.
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use cella_seal::stream::{HEADER, Header, Layout, Opener, SEGMENT, Segment, TAG, seal_file};
use cella_seal::{DataKey, place};
use serde_json::json;

use region::{Piece, Region};
use store::Store;

#[allow(dead_code, reason = "the agent's own module, of which this needs a part")]
#[path = "../src/workload/model/region.rs"]
mod region;
#[allow(dead_code, reason = "the agent's own module, of which this needs a part")]
#[path = "../src/workload/store.rs"]
mod store;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plain_path, sealed_path, folder] = arguments.as_slice() else {
        return Err("usage: sealed_load PLAIN SEALED FOLDER".into());
    };
    let threads = thread::available_parallelism()?;
    let (key, place) = (DataKey::random()?, place::associated_data("bench", "model.gguf", 1)?);
    let plain = File::open(plain_path)?;
    let mut new = OpenOptions::new();
    new.read(true).write(true).create(true).truncate(true);
    let sealed = new.open(sealed_path)?;
    let layout = seal_file(&key, &place, &plain, &sealed, threads)?.layout;

    let room = layout.plaintext_len().next_multiple_of(2 << 20) + (4 << 20);
    let bench = Bench {
        store: Store::for_models(Path::new(folder), room)?,
        plain,
        layout,
    };
    let open = |threads: NonZeroUsize| {
        bench.load(threads, || {
            let mut header = [0; HEADER];
            sealed.read_exact_at(&mut header, 0)?;
            let opener = Opener::new(&key, &Header::parse(&header)?, &place, layout)?;
            let sealed = &sealed;
            Ok(move |segment: &Segment, body: &mut [u8]| {
                let mut tag = [0; TAG];
                sealed.read_exact_at(body, segment.body().start)?;
                sealed.read_exact_at(&mut tag, segment.tag().start)?;
                opener.open_in_place(segment.index, body, &tag)?;
                // The file is whole when the last segment to be opened says so.
                Ok(opener.finish().is_ok())
            })
        })
    };
    let copy = || {
        let (plain, left) = (&bench.plain, AtomicUsize::new(usize::try_from(layout.segments())?));
        bench.load(threads, || {
            Ok(move |segment: &Segment, body: &mut [u8]| {
                plain.read_exact_at(body, segment.plaintext.start)?;
                Ok(left.fetch_sub(1, Ordering::Relaxed) == 1)
            })
        })
    };
    // The first pages a virtual host touches may cost it a fault on its own host: not what is measured.
    copy()?;
    let report = json!({
        "bytes": layout.plaintext_len(),
        "threads": threads,
        "sealed": open(threads)?,
        "copy": copy()?,
        "sealed_1_thread": open(NonZeroUsize::MIN)?,
    });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

struct Bench {
    store: Store,
    plain: File,
    layout: Layout,
}

impl Bench {
    /// Loads once; GB/s. What `prepare` gives fills one segment's memory and says whether the whole is there now.
    fn load<F>(&self, threads: NonZeroUsize, prepare: impl FnOnce() -> Outcome<F>) -> Outcome<f64>
    where
        F: Fn(&Segment, &mut [u8]) -> Outcome<bool> + Sync,
    {
        let staging = self.store.stage()?;
        let mut new = OpenOptions::new();
        new.read(true).write(true).create_new(true);
        let began = Instant::now();

        let file = new.open(staging.path().join("model.gguf"))?;
        let mut region = Region::create(&file, usize::try_from(self.layout.plaintext_len())?)?;
        let next = AtomicUsize::new(0);
        on_each(threads, || {
            while let Some(part) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|part| *part < region.parts()) {
                region.populate(part)?;
            }
            Ok(())
        })?;
        let pieces = region.pieces(self.layout.iter().map(|segment| segment.plaintext_len()))?;
        let mut segments: Vec<(Segment, Piece)> = self.layout.iter().zip(pieces).collect();
        segments.rotate_right(1);
        let (fill, segments) = (prepare()?, Mutex::new(segments.into_iter()));
        let whole = AtomicUsize::new(0);
        let take = || segments.lock().unwrap_or_else(PoisonError::into_inner).next();
        on_each(threads, || {
            while let Some((segment, mut piece)) = take() {
                whole.fetch_add(usize::from(fill(&segment, &mut piece)?), Ordering::Relaxed);
            }
            Ok(())
        })?;
        if whole.into_inner() == 0 {
            return Err("the file is not whole".into());
        }
        let frozen = region.freeze()?;

        let took = began.elapsed().as_secs_f64();
        self.compare(&file)?;
        drop(frozen);
        Ok(f64::from(u32::try_from(self.layout.plaintext_len() >> 10)?) * 1024.0 / 1e9 / took)
    }

    fn compare(&self, loaded: &File) -> Outcome<()> {
        let (mut expected, mut found) = (vec![0; SEGMENT], vec![0; SEGMENT]);
        let mut at = 0;
        loop {
            let count = self.plain.read_at(&mut expected, at)?;
            let (expected, found) = (expected.get(..count), found.get_mut(..count));
            let found = found.unwrap_or_default();
            loaded.read_exact_at(found, at)?;
            if expected != Some(found) {
                return Err("what was loaded is not what was sealed".into());
            }
            if count == 0 {
                return Ok(());
            }
            at += u64::try_from(count)?;
        }
    }
}

/// Runs `work` on so many threads at the same time.
fn on_each(threads: NonZeroUsize, work: impl Fn() -> Outcome<()> + Sync) -> Outcome<()> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.get()).map(|_| scope.spawn(&work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })
}
