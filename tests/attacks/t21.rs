//! T21: a model or a server that was malicious from the start.
use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use cella_oci::{
    Manifest,
    modelpack::{Form, Kind, LayerType, Rules, sealed_model},
};
use cella_tests::{Fixture, Run, Workload, fixture::HELLO, process::succeed, registry, stack::repository};

use crate::attack::{Attack, Ground, On, Seen, Threat, chain, told};

pub(crate) const THREAT: Threat = Threat {
    number: 21,
    title: "Malicious model content",
    attacks: &[
        Attack {
            name: "a_pickle_in_a_model",
            tried: "an owner seals a folder with a pickle beside the weights, with a program, and with a pickle named .safetensors",
            on: On::Desk,
            run: pickle,
        },
        Attack {
            name: "a_program_in_a_models_manifest",
            tried: "an artifact whose manifest has a layer of kind `code`, or weights in a format that runs code",
            on: On::Library,
            run: code_layer,
        },
        Attack {
            name: "a_server_that_breaks_out",
            tried: "a program in a container tries vsock, namespaces, mounts, device nodes, locked memory, the clock, raw packets, the initdata disk and more",
            on: On::Machine,
            run: breaks_out,
        },
    ],
    open: &[],
};

fn pickle(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let seal = |name: &str, extra: Option<(&str, &[u8])>| -> Result<String> {
        let folder = f.stack.path(&f.stack.fresh(name));
        fs::create_dir(&folder)?;
        fs::copy(f.stack.path("demo.gguf"), folder.join("demo.gguf"))?;
        if let Some((file, bytes)) = extra {
            fs::write(folder.join(file), bytes)?;
        }
        let (from, out) = (
            folder.to_string_lossy().into_owned(),
            format!("{}.oci", folder.display()),
        );
        let kek = f.stack.path("model.kek").to_string_lossy().into_owned();
        f.stack.cellactl([
            "model",
            "seal",
            &from,
            "--name",
            "models/evil",
            "--version",
            "1",
            "--key",
            cella_tests::fixture::MODEL_KEY,
            "--key-file",
            &kek,
            "--out",
            &out,
        ])
    };
    seal("plain", None)?;
    let mut said = Vec::new();
    let pickle = b"\x80\x04\x95cposix\nsystem\n(S'id'\ntR.";
    for (name, file, bytes) in [
        ("pickle", "pytorch_model.bin", pickle.as_slice()),
        ("program", "modeling_evil.py", b"import os\n".as_slice()),
        ("disguised", "model.safetensors", pickle.as_slice()),
    ] {
        match seal(name, Some((file, bytes))) {
            Ok(_) => bail!("{file} was sealed"),
            Err(error) => said.push(told(&error)),
        }
    }
    Ok(Seen::new(
        "the folder without it is sealed; no option takes it in",
        said.join("; "),
    ))
}

fn code_layer(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let manifest = registry::manifest(&f.stack, &f.model)?;
    let with = |change: &dyn Fn(&mut serde_json::Value)| -> Result<Manifest> {
        let mut manifest = manifest.clone();
        change(manifest.pointer_mut("/layers/0").context("a layer")?);
        Ok(Manifest::parse(manifest.to_string().as_bytes())?)
    };
    let rules = Rules::new("models/demo", 1, 1 << 40);
    let lax = Rules {
        kinds: vec![Kind::Weight, Kind::Code],
        any_weight_format: true,
        ..rules.clone()
    };
    sealed_model(&with(&|_| ())?, &rules)?;
    let code = LayerType {
        kind: Kind::Code,
        form: Form::Raw,
        sealed: true,
    }
    .to_string();
    let mut said = Vec::new();
    let code_layer = with(&|layer| set(layer, "mediaType", &code))?;
    let pickle = with(&|layer| rename(layer, "model.bin"))?;
    for changed in [code_layer, pickle] {
        sealed_model(&changed, &lax).context("rules that allow it")?;
        match sealed_model(&changed, &rules) {
            Ok(_) => bail!("the manifest was taken"),
            Err(error) => said.push(chain(&error)),
        }
    }
    Ok(Seen::new(
        "with the library's rules set to take code and every format both manifests pass",
        said.join("; "),
    ))
}

fn set(layer: &mut serde_json::Value, member: &str, value: &str) {
    if let Some(object) = layer.as_object_mut() {
        object.insert(member.to_owned(), value.into());
    }
}

/// Another path for the layer, in whichever annotation has it.
fn rename(layer: &mut serde_json::Value, path: &str) {
    let annotations = layer.get_mut("annotations").and_then(|a| a.as_object_mut());
    for (_, value) in annotations.into_iter().flatten() {
        if value == "demo.gguf" {
            *value = path.into();
        }
    }
}

/// What the program could do, and what not, with the kernel's reasons.
type Tries = (Vec<String>, Vec<String>);

fn breaks_out(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let image = attackers_image(f)?;
    let (without, _) = tries(f, &image, POWERS, FLAGS)?;
    g.leaves_nothing()?;
    let (with, refused) = tries(f, &image, "", &[])?;
    ensure!(with.is_empty(), "the container could {with:?}");
    for name in ["vsock", "mount", "namespaces", "device-node", "mlock", "clock"] {
        ensure!(
            without.iter().any(|done| done == name),
            "{name} does not work without the defence either: {without:?}"
        );
    }
    Ok(Seen::new(
        format!(
            "with every power and no filter the same program could: {}",
            without.join(", ")
        ),
        refused.join(", "),
    ))
}

/// A filter of neither the agent's nor the host's, and every power.
const POWERS: &str = "readonly-rootfs = false\ncapabilities = \"any\"\nseccomp = \"any\"\nmasked-paths = \"any\"\nrlimits = \"any\"\n\
    memlock-bytes = \"unlimited\"\n";
/// What the host asks for then.
const FLAGS: &[&str] = &[
    "--cap-add",
    "CAP_SYS_ADMIN",
    "--cap-add",
    "CAP_SYS_TIME",
    "--cap-add",
    "CAP_NET_ADMIN",
    "--cap-add",
    "CAP_IPC_LOCK",
    "--cap-add",
    "CAP_SYS_PTRACE",
];

fn tries(f: &Fixture, image: &str, container: &str, flags: &[&str]) -> Result<Tries> {
    let args = ["/bin/tries"];
    let tmpfs = "[[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 1\n";
    let workload = Workload::new(&f.stack, image, &[], &args).container(&format!("{container}{tmpfs}"));
    let policy = f.allowed(&workload)?;
    let out = Run::new(&f.stack, image, &policy, &args).flags(flags).go(&f.stack)?;
    ensure!(out.stdout.contains("@DONE") && !out.stdout.contains(HELLO), "{out:?}");
    let all = out.stdout.lines().filter_map(|line| line.strip_prefix("@TRY "));
    let (done, denied): (Vec<_>, Vec<_>) = all.map(str::to_owned).partition(|line| line.ends_with(" ok"));
    let names = done
        .iter()
        .filter_map(|line| line.strip_suffix(" ok"))
        .map(str::to_owned)
        .collect();
    Ok((names, denied.iter().map(|line| line.replacen(" no:", ":", 1)).collect()))
}

/// A plain image whose only program is `tools/attacker/tries.c`.
fn attackers_image(f: &Fixture) -> Result<String> {
    let root = f.stack.path("attacker");
    for folder in ["bin", "tmp", "etc", "proc", "sys", "dev", "run"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let source = repository().join("tools/attacker/tries.c");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-static", "-o"])
        .arg(root.join("bin/tries"))
        .arg(source);
    succeed(&mut gcc, Duration::from_secs(60))?;
    f.plain("attacker", &root, "/bin/tries")
}
