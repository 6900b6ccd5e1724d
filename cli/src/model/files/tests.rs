//! Folders that are models, and folders that are not.

use std::os::unix::fs::symlink;

use super::*;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn collect(source: &Path) -> Result<Collected, FilesError> {
    super::collect(
        source,
        Reading {
            contents: Contents::Model,
            headers: true,
        },
    )
}

fn refused(files: &[(&str, &[u8])]) -> FilesError {
    collect(folder(files).path()).unwrap_err()
}

/// A file with these tensors, two bf16 each.
fn safetensors(names: &[&str]) -> Vec<u8> {
    let tensor = |(at, name): (usize, &&str)| {
        let (start, end) = (at * 4, at * 4 + 4);
        format!(r#""{name}":{{"dtype":"BF16","shape":[2],"data_offsets":[{start},{end}]}}"#)
    };
    let list: Vec<String> = names.iter().enumerate().map(tensor).collect();
    let header = format!("{{{}}}", list.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 4 * names.len(), 0);
    bytes
}

fn index(map: &[(&str, &str)]) -> String {
    let list: Vec<String> = map
        .iter()
        .map(|(tensor, file)| format!(r#""{tensor}":"{file}""#))
        .collect();
    format!(r#"{{"metadata":{{}},"weight_map":{{{}}}}}"#, list.join(","))
}

/// A GGUF file with a few key-value pairs and one tensor.
fn gguf(split: Option<(u16, u16)>) -> Vec<u8> {
    let pairs: u64 = if split.is_some() { 4 } else { 2 };
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(pairs.to_le_bytes());
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    text(&mut bytes, "general.architecture");
    bytes.extend(8_u32.to_le_bytes());
    text(&mut bytes, "llama");
    text(&mut bytes, "general.file_type");
    bytes.extend(4_u32.to_le_bytes());
    bytes.extend(7_u32.to_le_bytes());
    for (key, value) in split
        .iter()
        .flat_map(|(no, count)| [("split.no", no), ("split.count", count)])
    {
        text(&mut bytes, key);
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    text(&mut bytes, "t");
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(3200_u64.to_le_bytes());
    bytes.extend(8_u32.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(32) + 3400, 0);
    bytes
}

#[test]
fn a_folder_is_read_in_the_order_of_its_paths() {
    let weights = safetensors(&["t"]);
    let dir = folder(&[
        ("b.safetensors", &weights),
        ("a/c.safetensors", &weights),
        ("config.json", br#"{"model_type":"llama","other":1}"#),
        ("tokenizer.model", b""),
        ("README.md", b""),
        ("LICENSE", b""),
        (".git/x.py", b""),
    ]);
    let collected = collect(dir.path()).unwrap();
    assert_eq!(collected.format, Some(Format::Safetensors));
    assert_eq!(collected.hidden, [Path::new(".git")]);
    let found: Vec<(&str, Kind)> = collected
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.kind))
        .collect();
    assert_eq!(
        found,
        [
            ("LICENSE", Kind::Doc),
            ("README.md", Kind::Doc),
            ("a/c.safetensors", Kind::Weight),
            ("b.safetensors", Kind::Weight),
            ("config.json", Kind::WeightConfig),
            ("tokenizer.model", Kind::WeightConfig),
        ]
    );
    let parameters = collected.parameters;
    assert_eq!(parameters.architecture.as_deref(), Some("llama"));
    assert_eq!(parameters.precision.as_deref(), Some("bf16"));
    assert_eq!(
        (parameters.quantization, parameters.format.as_deref()),
        (None, Some("safetensors"))
    );
    let single = collect(&dir.path().join("b.safetensors")).unwrap();
    assert_eq!(
        (single.files.len(), single.files[0].path.as_str()),
        (1, "b.safetensors")
    );
}

#[test]
fn t21_programs_and_pickles_are_refused() {
    let with = |name: &str| refused(&[("m.gguf", &gguf(None)), (name, b"x")]);
    assert!(matches!(with("modeling.py"), FilesError::Code { .. }));
    assert!(matches!(with("lib.SO"), FilesError::Code { .. }));
    assert!(matches!(with("pytorch_model.bin"), FilesError::Pickle { .. }));
    assert!(matches!(with("x.pt"), FilesError::Pickle { .. }));
    assert!(matches!(with("x.unknown"), FilesError::Unknown { .. }));
    assert!(matches!(with("x.safetensors"), FilesError::Magic { .. }));
}

#[test]
fn other_folders_are_sealed_when_asked_for() {
    let dir = folder(&[
        ("run.py", b""),
        ("a.onnx", b""),
        ("x.bin", b""),
        ("rows.jsonl", b"{}"),
        ("a.json", b"{}"),
    ]);
    let kinds = |contents| {
        let reading = Reading {
            contents,
            headers: true,
        };
        let collected = super::collect(dir.path(), reading).unwrap();
        collected.files.iter().map(|file| file.kind).collect::<Vec<_>>()
    };
    let (code, config, data, weight) = (Kind::Code, Kind::WeightConfig, Kind::Dataset, Kind::Weight);
    assert_eq!(kinds(Contents::Any), [config, weight, data, code, weight]);
    assert_eq!(kinds(Contents::Dataset), [data; 5]);
    let empty = folder(&[(".x", b"")]);
    for contents in [Contents::Any, Contents::Dataset] {
        let reading = Reading {
            contents,
            headers: true,
        };
        let refused = super::collect(empty.path(), reading);
        assert!(matches!(refused, Err(FilesError::Empty { .. })));
    }
}

#[test]
fn folders_without_one_format_are_refused() {
    assert!(matches!(refused(&[]), FilesError::NoWeights { .. }));
    assert!(matches!(refused(&[("a.json", b"{}")]), FilesError::NoWeights { .. }));
    let mixed = refused(&[("a.gguf", &gguf(None)), ("b.safetensors", &safetensors(&[]))]);
    assert!(matches!(mixed, FilesError::MixedFormats { .. }));
    assert!(matches!(
        collect(Path::new("/nonexistent")),
        Err(FilesError::Read { .. })
    ));
    assert!(matches!(
        refused(&[("a.gguf", b"\x80\x04pickle")]),
        FilesError::Magic { .. }
    ));
}

#[test]
fn links_and_special_files_are_named() {
    let weights = gguf(None);
    let dir = folder(&[("m.gguf", &weights), ("deep/config.json", b"{}")]);
    symlink("../m.gguf", dir.path().join("deep/n.gguf")).unwrap();
    let error = collect(dir.path()).unwrap_err();
    assert!(
        matches!(&error, FilesError::Link { path } if path.ends_with("deep/n.gguf")),
        "{error}"
    );
    assert!(matches!(
        collect(&dir.path().join("deep/n.gguf")),
        Err(FilesError::Link { .. })
    ));
    assert!(matches!(
        open(&dir.path().join("deep/n.gguf")),
        Err(FilesError::Link { .. })
    ));
    fs::remove_file(dir.path().join("deep/n.gguf")).unwrap();
    symlink(dir.path(), dir.path().join("deep/loop")).unwrap();
    assert!(matches!(collect(dir.path()), Err(FilesError::Link { path }) if path.ends_with("deep/loop")));
    fs::remove_file(dir.path().join("deep/loop")).unwrap();
    let socket = dir.path().join("x.json");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(collect(dir.path()), Err(FilesError::Special { path }) if path == socket));
    assert!(open(&socket).is_err());
    // The folder itself may be reached over a link.
    fs::remove_file(&socket).unwrap();
    let link = dir.path().with_extension("link");
    symlink(dir.path(), &link).unwrap();
    assert_eq!(collect(&link).unwrap().files.len(), 2);
    fs::remove_file(&link).unwrap();
}

#[test]
fn names_that_no_manifest_may_hold_are_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let weights = gguf(None);
    let dir = folder(&[("m.gguf", &weights)]);
    let bad = dir.path().join(std::ffi::OsStr::from_bytes(b"a\xff.json"));
    fs::write(&bad, b"{}").unwrap();
    assert!(matches!(collect(dir.path()), Err(FilesError::Name { path }) if path == bad));
    fs::remove_file(&bad).unwrap();
    for name in ["a\\b.json", "a\nb.json"] {
        let bad = dir.path().join(name);
        fs::write(&bad, b"{}").unwrap();
        assert!(matches!(collect(dir.path()), Err(FilesError::Path { path, .. }) if path == bad));
        fs::remove_file(&bad).unwrap();
    }
    let mut deep = String::new();
    (0..10).for_each(|_| deep.push_str("d/"));
    let dir = folder(&[("m.gguf", &weights), (&format!("{deep}a.json"), b"{}")]);
    assert!(matches!(collect(dir.path()), Err(FilesError::TooDeep { .. })));
}

#[test]
fn parts_are_complete_or_refused() {
    let (one, two) = (gguf(Some((0, 2))), gguf(Some((1, 2))));
    let dir = folder(&[
        ("m-00001-of-00002.gguf", &one),
        ("m-00002-of-00002.gguf", &two),
        ("other.gguf", &gguf(None)),
    ]);
    let all = collect(dir.path()).unwrap();
    assert_eq!(all.files.len(), 3);
    assert_eq!(all.parameters.quantization.as_deref(), Some("q8_0"));
    assert_eq!(
        (
            all.parameters.architecture.as_deref(),
            all.parameters.param_size.as_deref()
        ),
        (Some("llama"), Some("9.6k"))
    );
    // Any part stands for all of them, and for nothing beside them.
    for part in ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"] {
        assert_eq!(collect(&dir.path().join(part)).unwrap().files.len(), 2, "{part}");
    }
    fs::remove_file(dir.path().join("m-00002-of-00002.gguf")).unwrap();
    let error = collect(dir.path()).unwrap_err();
    assert!(matches!(&error, FilesError::Shards { source, .. } if source.missing == "m-00002-of-00002.gguf"));
    assert!(matches!(
        collect(&dir.path().join("m-00001-of-00002.gguf")),
        Err(FilesError::Read { .. })
    ));
    // The header says another part than the name.
    let swapped = refused(&[("m-00001-of-00002.gguf", &two), ("m-00002-of-00002.gguf", &one)]);
    assert!(matches!(
        swapped,
        FilesError::OtherShard {
            number: 2,
            count: 2,
            ..
        }
    ));
    assert!(matches!(refused(&[("m.gguf", &one)]), FilesError::OtherShard { .. }));
}

#[test]
fn weights_that_are_cut_short_are_refused() {
    let (weights, tensors) = (gguf(None), safetensors(&["t"]));
    for (name, bytes) in [("m.gguf", &weights), ("m.safetensors", &tensors)] {
        let cut = &bytes[..bytes.len() - 1];
        let dir = folder(&[(name, cut)]);
        assert!(matches!(collect(dir.path()), Err(FilesError::Weights { .. })), "{name}");
        let reading = Reading {
            contents: Contents::Model,
            headers: false,
        };
        assert_eq!(
            super::collect(dir.path(), reading).unwrap().files.len(),
            1,
            "unread when asked for"
        );
    }
}

#[test]
fn an_index_is_held_to_the_files_beside_it() {
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let (a, b) = (safetensors(&["a"]), safetensors(&["b", "c"]));
    let good = index(&[("a", one), ("b", two), ("c", two)]);
    let name = "model.safetensors.index.json";
    let files = |index: &str, more: &[(&str, &[u8])]| {
        let mut all = vec![(one, a.as_slice()), (two, b.as_slice()), (name, index.as_bytes())];
        all.extend(more);
        collect(folder(&all).path())
    };
    assert_eq!(files(&good, &[("tokenizer.json", b"{}")]).unwrap().files.len(), 4);
    let lone = folder(&[(one, &a), (two, &b), ("config.json", b"{}")]);
    for path in [lone.path().to_owned(), lone.path().join(one)] {
        assert!(matches!(collect(&path), Err(FilesError::NoIndex { path }) if path.ends_with(one)));
    }
    let third = "model-00003-of-00003.safetensors";
    assert!(matches!(
        files(&index(&[("a", one), ("b", two), ("x", "y.safetensors")]), &[]),
        Err(FilesError::NotThere { file, .. }) if file == "y.safetensors"
    ));
    assert!(matches!(
        files(&good, &[("extra.safetensors", &a)]),
        Err(FilesError::NotNamed { file, .. }) if file == "extra.safetensors"
    ));
    assert!(matches!(
        files(&index(&[("a", two), ("b", two)]), &[]),
        Err(FilesError::NoTensor { tensor, .. }) if tensor == "a"
    ));
    assert!(matches!(files(&good, &[(third, &a)]), Err(FilesError::Shards { .. })));
    assert!(matches!(files("{}", &[]), Err(FilesError::Weights { .. })));
    assert!(matches!(
        files(&index(&[("a", "../x.safetensors")]), &[]),
        Err(FilesError::Weights { .. })
    ));
}
