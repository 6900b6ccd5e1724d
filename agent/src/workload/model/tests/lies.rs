//! Registries and manifests that lie, and mirrors that are passed over.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::workload::testkit::liar::{Answer, Liar, Question};

/// A lie, and a part of what must be said about it.
type Lie = (&'static str, fn(&Question, &mut Answer), &'static str);

/// What a registry may do to a range of a blob. The file has five segments; four of them are the bulk.
const LIES: [Lie; 11] = [
    ("the whole in place of a part", whole, "answers 200"),
    ("a shorter range", shorter, "are missing"),
    ("a longer range", longer, "are missing"),
    ("another range", elsewhere, "are missing"),
    ("no range named", |_, answer| answer.range = None, "are missing"),
    ("more bytes than the range has", more, "announces"),
    ("a body without end", endless, "goes on behind"),
    ("a body cut short", cut, "could not be fetched"),
    (
        "a body of unannounced length that ends early",
        early,
        "could not be fetched",
    ),
    (
        "an error",
        |_, answer| answer.status = "503 Unavailable".into(),
        "answered 503",
    ),
    (
        "a redirect elsewhere",
        |_, answer| answer.status = "307 There".into(),
        "could not be fetched",
    ),
];

fn whole(_: &Question, answer: &mut Answer) {
    (answer.status, answer.range) = ("200 OK".into(), None);
    more(&Question { range: None }, answer);
}

fn shorter(question: &Question, answer: &mut Answer) {
    let (first, last) = question.range.unwrap();
    answer.range = Some(format!("bytes {first}-{}/*", last - 1));
    answer.body.pop();
    answer.length = Some(answer.body.len());
}

fn longer(question: &Question, answer: &mut Answer) {
    let (first, last) = question.range.unwrap();
    answer.range = Some(format!("bytes {first}-{}/*", last + 1));
    answer.body.push(0);
    answer.length = Some(answer.body.len());
}

fn elsewhere(question: &Question, answer: &mut Answer) {
    let (first, last) = question.range.unwrap();
    answer.range = Some(format!("bytes {}-{}/*", first + 1, last + 1));
}

fn more(_: &Question, answer: &mut Answer) {
    answer.body.extend([0; 100]);
    answer.length = Some(answer.body.len());
}

fn endless(_: &Question, answer: &mut Answer) {
    answer.body.extend([0; 100]);
    answer.length = None;
}

fn cut(_: &Question, answer: &mut Answer) {
    // Half a segment, or half a header.
    answer.body.truncate(answer.body.len().min(1_000_000) / 2);
}

fn early(question: &Question, answer: &mut Answer) {
    cut(question, answer);
    answer.length = None;
}

/// Lies about the bulk only: header and last segment are as they are.
fn bulk(lie: fn(&Question, &mut Answer)) -> impl Fn(&Question, &mut Answer) {
    move |question, answer| {
        if question.is_bulk() {
            lie(question, answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lies_about_a_part_is_refused_by_file_and_segment() {
    let bench = Bench::new();
    let file = sealed("model.gguf", Kind::Weight, content((4 << 20) - 200, 1));
    let bytes = total(std::slice::from_ref(&file));
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    for (what, lie, said) in LIES {
        // The last segment comes first: 3 of 0 to 3.
        for (segment, liar) in [
            (3, Liar::start(bench.registry.port, bulk(lie)).await),
            (0, Liar::start(bench.registry.port, past_the_last(lie)).await),
        ] {
            let error = bench.pull_as(liar.port, &artifact, 1, bytes).await.0.unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("models/demo") && text.contains("model.gguf") && text.contains(said),
                "{what}: {text}"
            );
            // What comes before the end is used.
            let segment = if what == "a body without end" {
                3 - usize::from(segment == 0)
            } else {
                segment
            };
            assert!(text.contains(&format!("segment {segment}")), "{what}: {text}");
            assert_ne!(error.blame(), crate::workload::Blame::Internal, "{what}");
        }
    }
}

/// Lies about the segments in front of the last one.
fn past_the_last(lie: fn(&Question, &mut Answer)) -> impl Fn(&Question, &mut Answer) {
    move |question, answer| {
        if question.is_bulk() && question.range.is_some_and(|(first, _)| first < 1 << 20) {
            lie(question, answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lies_about_a_header_is_refused_by_file() {
    let bench = Bench::new();
    let file = weights();
    let bytes = total(std::slice::from_ref(&file));
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    for (what, lie, said) in LIES {
        let header = move |question: &Question, answer: &mut Answer| {
            if question.range.is_some_and(|(first, _)| first == 0) {
                lie(question, answer);
            }
        };
        let liar = Liar::start(bench.registry.port, header).await;
        let (result, _store) = bench.pull_as(liar.port, &artifact, 1, bytes).await;
        let Err(error) = result else {
            panic!("{what}: loaded");
        };
        let text = error.to_string();
        assert!(
            text.contains("models/demo") && text.contains("segment 0") && text.contains("model.gguf"),
            "{what}: {text}"
        );
        assert!(text.contains(said), "{what}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_another_place_under_the_right_range_do_not_open() {
    let bench = Bench::new();
    let file = sealed("model.gguf", Kind::Weight, content(4 << 20, 1));
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    let swapped = |question: &Question, answer: &mut Answer| {
        if question.range.is_some_and(|(first, _)| first == 40) {
            let (one, two) = answer.body.split_at_mut((2 << 20) - 40);
            one[(1 << 20) - 40..].swap_with_slice(&mut two[..1 << 20]);
        }
    };
    let liar = Liar::start(bench.registry.port, swapped).await;
    let (result, _store) = bench
        .pull_as(liar.port, &artifact, 1, total(std::slice::from_ref(&file)))
        .await;
    assert!(
        matches!(&result, Err(WorkloadError::Segment { segment: 1 | 2, .. })),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_in_order_and_passed_over_when_they_fail() {
    let bench = Bench::new();
    let file = sealed("model.gguf", Kind::Weight, content(20 << 20, 1));
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    let bytes = total(std::slice::from_ref(&file));
    let (port, asked) = (bench.registry.port, Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&asked);
    let good = Liar::start(port, move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
    })
    .await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let lying = Liar::start(port, |_, answer| answer.body.reverse()).await;
    let empty = TestRegistry::start();
    let half = Liar::start(port, |question, answer| {
        if question.is_bulk() {
            answer.body.truncate(2_500_000);
        }
    })
    .await;
    // The registry itself is not there: everything comes from the third mirror, but for what the fourth begins.
    let mirrors = [nobody, empty.port, lying.port, good.port];
    let policy = testkit::model_policy(nobody, &mirrors, (&artifact, 1, bytes), "");
    let (result, store) = bench.load(&policy).await;
    assert_eq!(result.unwrap().files[0].content(), file.plain);
    drop(store);
    assert!(
        asked.load(Ordering::Relaxed) >= 5,
        "manifest, configuration, header, last segment, bulk"
    );
    // A mirror that breaks off is followed by the next one, at the segment.
    let policy = testkit::model_policy(port, &[half.port], (&artifact, 1, bytes), "");
    let (result, store) = bench.load(&policy).await;
    assert_eq!(result.unwrap().files[0].content(), file.plain);
    drop(store);
    // Nobody has it.
    let policy = testkit::model_policy(empty.port, &[nobody], (&artifact, 1, bytes), "");
    let (result, _store) = bench.load(&policy).await;
    let error = result.unwrap_err();
    assert!(error.to_string().contains("does not have it"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_lie_are_refused_before_memory_is_taken() {
    let bench = Bench::new();
    let file = weights();
    let bytes = total(std::slice::from_ref(&file));
    let path = |manifest: &mut cella_oci::Manifest, path: &str| {
        let key = cella_oci::modelpack::FILEPATH_ANNOTATION.to_owned();
        manifest.layers[0].annotations.insert(key, path.to_owned());
    };
    type Change<'c> = (&'c str, Box<dyn FnOnce(&mut cella_oci::Manifest) + 'c>);
    let many = |count: usize| {
        move |manifest: &mut cella_oci::Manifest| {
            let layer = manifest.layers[0].clone();
            manifest.layers = (0..count)
                .map(|index| {
                    let mut layer = layer.clone();
                    let key = cella_oci::modelpack::FILEPATH_ANNOTATION.to_owned();
                    layer.annotations.insert(key, format!("{index}.gguf"));
                    // Under the limit of a manifest's length.
                    layer.annotations.retain(|key, _| key.starts_with("org.cncf"));
                    layer
                })
                .collect();
        }
    };
    let endless = |manifest: &mut cella_oci::Manifest| {
        many(3)(manifest);
        manifest
            .layers
            .iter_mut()
            .for_each(|layer| layer.size = i64::MAX.unsigned_abs());
    };
    let changes: [Change<'_>; 10] = [
        ("../model.gguf", Box::new(|m| path(m, "../model.gguf"))),
        ("/etc/model.gguf", Box::new(|m| path(m, "/etc/model.gguf"))),
        ("a//model.gguf", Box::new(|m| path(m, "a//model.gguf"))),
        (
            "is itself a file",
            Box::new(|m| {
                m.layers.push(m.layers[0].clone());
                path(m, "model.gguf/model.gguf");
            }),
        ),
        // An archive could hold links.
        (
            "tar+encrypted, which is not allowed here",
            Box::new(|m| m.layers[0].media_type = "application/vnd.cncf.model.weight.v1.tar+encrypted".into()),
        ),
        ("stands twice", Box::new(|m| m.layers.push(m.layers[0].clone()))),
        (
            "more than 4294967295 segments",
            Box::new(|m| m.layers[0].size = i64::MAX.unsigned_abs()),
        ),
        (
            "the layers of the model have 18446744073709551615 bytes",
            Box::new(endless),
        ),
        ("more than 4096", Box::new(many(5000))),
        ("names 1", Box::new(many(3000))),
    ];
    for (said, change) in changes {
        let artifact = push_changed(&bench.registry, std::slice::from_ref(&file), change).await;
        let error = bench.fails(&artifact, bytes).await;
        assert_eq!(error.blame(), crate::workload::Blame::Content, "{error}");
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
    // Larger than the blob, with a policy that believes it.
    let larger = file.layer.size + (1 << 20);
    let artifact = push_changed(&bench.registry, std::slice::from_ref(&file), |m| {
        m.layers[0].size = larger
    })
    .await;
    let believed = Layout::from_ciphertext_len(larger).unwrap().plaintext_len();
    let error = bench.fails(&artifact, believed).await;
    assert!(
        matches!(
            &error,
            WorkloadError::File {
                fault: FileFault::Missing { segment: 5, .. },
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_runs_out_half_way_is_given_back() {
    let bench = Bench::new();
    let files = [
        sealed("a.gguf", Kind::Weight, content(8 << 20, 1)),
        sealed("b.gguf", Kind::Weight, content(40 << 20, 2)),
    ];
    let artifact = push(&bench.registry, &files).await;
    let policy = testkit::model_policy(bench.registry.port, &[], (&artifact, 1, total(&files)), "");
    let registries = Registries::of(&policy, &TrustedTime::unknown(), &testkit::log()).unwrap();
    let store = Arc::new(Store::for_models(bench.folder.path(), 20 << 20).unwrap());
    let model = policy.model("models/demo").unwrap();
    let pull = ModelPull::new(model, &registries, Arc::clone(&store), 2, &testkit::log()).unwrap();
    let error = pull.run(testkit::keys()).await.unwrap_err();
    assert!(
        matches!(&error, WorkloadError::ModelMemoryGone { path, needs, .. } if path == "b.gguf" && *needs == 40 << 20),
        "{error}"
    );
    let said = "model models/demo: 42 MB of memory were there for b.gguf and are not any more; ";
    assert!(error.to_string().starts_with(said), "{error}");
    assert_eq!(store.census(), (0, 0));
    let free = nix::sys::statvfs::statvfs(bench.folder.path()).unwrap();
    assert_eq!(free.blocks(), free.blocks_free(), "memory was not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_to_be_seen_before_the_last_segment() {
    let bench = Bench::new();
    let file = sealed("model.gguf", Kind::Weight, content(4 << 20, 1));
    let artifact = push(&bench.registry, std::slice::from_ref(&file)).await;
    let ready = bench.folder.path().join("ready");
    let seen = Arc::new(AtomicUsize::new(0));
    let (look, counted) = (ready.clone(), Arc::clone(&seen));
    let liar = Liar::start(bench.registry.port, move |_, _| {
        counted.fetch_add(fs::read_dir(&look).unwrap().count(), Ordering::Relaxed);
    })
    .await;
    let (result, _store) = bench
        .pull_as(liar.port, &artifact, 1, total(std::slice::from_ref(&file)))
        .await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(
        seen.load(Ordering::Relaxed),
        0,
        "something was ready while the registry was still asked"
    );
    assert_eq!(fs::read_dir(ready).unwrap().count(), 1);
}
