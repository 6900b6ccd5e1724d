//! How fast a model comes from a registry, against what `curl` reaches. Run by `make bench-model`, which says how large and how often.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::*;

/// A number of the environment.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Memory of this process that no file is behind, in bytes.
fn anonymous() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

fn cpu_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Four ranges at the same time into files of the same memory file system.
fn curl(port: u16, blob: &str, bytes: u64, folder: &std::path::Path) -> f64 {
    let part = bytes.div_ceil(4);
    let begun = Instant::now();
    let mut running: Vec<_> = (0..4)
        .map(|index| {
            let (first, last) = (index * part, ((index + 1) * part).min(bytes) - 1);
            let mut command = Command::new("curl");
            command.args(["-sf", "-r", &format!("{first}-{last}"), "-o"]);
            command.arg(folder.join(format!("part{index}")));
            command.arg(format!("http://127.0.0.1:{port}/v2/models/demo/blobs/{blob}"));
            command.stdin(Stdio::null()).spawn().unwrap()
        })
        .collect();
    assert!(running.iter_mut().all(|child| child.wait().unwrap().success()));
    let took = begun.elapsed().as_secs_f64();
    let found: u64 = (0..4)
        .map(|index| fs::metadata(folder.join(format!("part{index}"))).unwrap().len())
        .sum();
    assert_eq!(found, bytes);
    (0..4).for_each(|index| fs::remove_file(folder.join(format!("part{index}"))).unwrap());
    took
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark: make bench-model"]
async fn rate_of_a_pull() {
    let (mib, runs) = (setting("CELLA_BENCH_MIB", 64), setting("CELLA_BENCH_RUNS", 1));
    let bench = Bench::new();
    let plain: Vec<u8> = content(1 << 20, 1).into_iter().cycle().take(mib << 20).collect();
    let bytes = u64::try_from(plain.len()).unwrap();
    let file = sealed("model.gguf", Kind::Weight, plain);
    let (blob, stored) = (file.layer.digest.to_string(), file.layer.size);
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    drop(file);
    let rate = |seconds: f64| format!("{:.3}", bytes as f64 / seconds / 1e9);
    let (mut pulls, mut curls, mut extra, mut cpu) = (vec![], vec![], 0, vec![]);
    for run in 0..=runs {
        let room = memory::rounded(stored) + (16 << 20);
        let store = Arc::new(Store::for_models(bench.folder.path(), room).unwrap());
        let peer = curl(bench.registry.port, &blob, stored, store.root());
        let policy = testkit::model_policy(bench.registry.port, &[], (&artifact, 1, bytes), "");
        let registries = Registries::of(&policy, &TrustedTime::unknown(), &testkit::log()).unwrap();
        let model = policy.model("models/demo").unwrap();
        let pull = ModelPull::new(model, &registries, Arc::clone(&store), processors(), &testkit::log()).unwrap();
        let (before, peak, done) = (anonymous(), AtomicU64::new(0), AtomicBool::new(false));
        let (begun, spent) = (Instant::now(), cpu_seconds());
        let loaded = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    peak.fetch_max(anonymous(), Ordering::Relaxed);
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            });
            let loaded =
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(pull.run(testkit::keys())));
            done.store(true, Ordering::Relaxed);
            loaded.map(|loaded| (loaded, begun.elapsed().as_secs_f64()))
        });
        let (loaded, took) = loaded.unwrap();
        assert_eq!(loaded.files[0].locked, loaded.files[0].mapped);
        // The first run warms up the registry and the pages of a virtual machine.
        if run > 0 {
            pulls.push(rate(took));
            curls.push(rate(peer));
            cpu.push(format!("{:.3}", (cpu_seconds() - spent) * 1024.0 / mib as f64));
            extra = extra.max(peak.load(Ordering::Relaxed).saturating_sub(before));
        }
        drop((loaded, store));
    }
    println!(
        "{{\"mib\":{mib},\"pull\":[{}],\"curl\":[{}],\"cpu_s_per_gib\":[{}],\"extra_mib\":{:.1}}}",
        pulls.join(","),
        curls.join(","),
        cpu.join(","),
        extra as f64 / f64::from(1 << 20)
    );
}
