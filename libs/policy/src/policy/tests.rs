//! The example of the documentation, and one policy for each rule that it breaks.

mod models;
mod outputs;
mod pods;

use super::*;

pub(crate) const EXAMPLE: &str = include_str!("example.toml");

fn example() -> Policy {
    Policy::parse(EXAMPLE).unwrap()
}

/// The error for the example with one piece of its text replaced.
fn refused(from: &str, to: &str) -> PolicyError {
    let text = EXAMPLE.replacen(from, to, 1);
    assert_ne!(text, EXAMPLE, "{from:?} is not in the example");
    Policy::parse(&text).expect_err("refused")
}

fn said(from: &str, to: &str) -> String {
    refused(from, to).to_string()
}

#[test]
fn the_example_is_read() {
    let policy = example();
    assert_eq!(policy.kbs().unwrap().url.to_string(), "https://10.0.2.2:8443");
    assert_eq!(policy.registries().len(), 1);
    let server = policy.container("server").unwrap();
    assert_eq!(server.image.repository(), "demo/llama-server");
    assert!(server.require_encrypted, "follows from image-keys");
    assert_eq!(server.readonly_rootfs, Rule::Only(true));
    assert_eq!(server.cwd.only().unwrap().as_str(), "/");
    assert_eq!(
        server.user,
        UserPolicy::Ids(User {
            uid: 65534,
            gid: 65534,
            additional_gids: BTreeSet::new()
        })
    );
    assert_eq!(server.memlock, Memlock::Bytes(0));
    assert_eq!(server.stdio, Stdio::ALLOW);
    assert_eq!(server.hostname, None);
    assert_eq!(server.mounts[0].destination.as_str(), "/models/demo");
    assert_eq!(policy.model("models/demo").unwrap().bytes, 1_716_800);
    assert_eq!(policy.model_bytes(), 1_716_800);
    let keys: Vec<&str> = policy.key_ids().into_iter().map(KeyId::as_str).collect();
    assert_eq!(keys, ["kbs:///demo/image-kek/1", "kbs:///demo/model-kek/1"]);
    let image = &server.image;
    assert_eq!(
        policy.registry(image.registry()).unwrap().endpoint.to_string(),
        "http://10.0.2.2:5000"
    );
}

#[test]
fn writing_and_reading_gives_the_same() {
    let policy = example();
    let text = policy.to_toml();
    assert_eq!(Policy::parse(&text).unwrap(), policy, "{text}");
    assert_eq!(text.parse::<Policy>().unwrap().to_toml(), text);
    let file = PolicyFile {
        container: policy.to_file().container,
        ..policy.to_file()
    };
    assert_eq!(Policy::from_file(file).unwrap(), policy);
}

#[test]
fn unknown_keys_are_named_at_every_level() {
    for (anchor, level) in [
        ("version = 1", "top"),
        ("[kbs]", "kbs"),
        ("[[registry]]", "registry"),
        ("[[container]]", "container"),
        ("[[container.mount]]", "mount"),
        ("[[container.tmpfs]]", "tmpfs"),
        ("[[model]]", "model"),
    ] {
        let message = said(anchor, &format!("{anchor}\nsurprise-{level} = 1"));
        assert!(message.contains(&format!("`surprise-{level}`")), "{message}");
    }
    let message = said("uid = 65534,", "uid = 65534, shell = \"sh\",");
    assert!(message.contains("`shell`"), "{message}");
    let message = said("image-keys", "image_keys");
    assert!(message.contains("`image_keys`"), "{message}");
}

#[test]
fn keys_for_tokens_are_thumbprints() {
    assert!(example().kbs().unwrap().token_keys.is_empty());
    let key = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    let pinned = Policy::parse(&EXAMPLE.replace("[kbs]", &format!("[kbs]\ntoken-keys = [\"{key}\"]"))).unwrap();
    let keys = &pinned.kbs().unwrap().token_keys;
    assert_eq!(keys.iter().map(ToString::to_string).collect::<Vec<_>>(), [key]);
    assert_eq!(Policy::parse(&pinned.to_toml()).unwrap(), pinned);
    for bad in ["", "short", &key[1..], &format!("{key}="), &key.replace('-', "+")] {
        let message = said("[kbs]", &format!("[kbs]\ntoken-keys = [\"{key}\", \"{bad}\"]"));
        assert!(message.contains("kbs token-keys[1]"), "{message}");
    }
    let many = format!("[kbs]\ntoken-keys = [{}]", format!("\"{key}\",").repeat(17));
    assert!(said("[kbs]", &many).contains("token-keys"));
}

#[test]
fn syntax_errors_say_the_line() {
    assert!(matches!(refused("[kbs]", "[kbs"), PolicyError::Syntax { line: 3, .. }));
    assert!(matches!(
        refused("version = 1", "version = 1\nversion = 1"),
        PolicyError::Syntax { line: 2, .. }
    ));
    assert!(matches!(
        refused("version = 1", "version = -1"),
        PolicyError::Syntax { line: 1, .. }
    ));
    assert!(matches!(Policy::parse(""), Err(PolicyError::Syntax { .. })));
    let long = " ".repeat(crate::initdata::MAX_DOCUMENT + 1);
    assert!(matches!(Policy::parse(&long), Err(PolicyError::TooLarge { .. })));
}

#[test]
fn other_versions_are_refused() {
    assert_eq!(refused("version = 1", "version = 2"), PolicyError::Version { found: 2 });
}

#[test]
fn t5_a_revision_has_a_name_and_a_number() {
    let with = |lines: &str| EXAMPLE.replacen("version = 1", &format!("version = 1\n{lines}"), 1);
    let policy = Policy::parse(&with("name = \"demo\"\nrevision = 7")).unwrap();
    assert_eq!(policy.revision(), Some(("demo", 7)));
    assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
    assert_eq!(example().revision(), None);
    for alone in [
        "name = \"demo\"",
        "revision = 7",
        "name = \"a b\"\nrevision = 1",
        "name = \"..\"\nrevision = 1",
    ] {
        let refused = Policy::parse(&with(alone));
        assert!(matches!(refused, Err(PolicyError::Text { .. })), "{refused:?}");
    }
    let zero = Policy::parse(&with("name = \"demo\"\nrevision = 0"));
    assert!(matches!(zero, Err(PolicyError::Range { .. })), "{zero:?}");
}

#[test]
fn transport_needs_authority() {
    assert!(matches!(
        refused("https://10.0.2.2:8443", "http://10.0.2.2:8443"),
        PolicyError::PlainHttp { .. }
    ));
    let ca = &EXAMPLE[EXAMPLE.find("ca = ").unwrap()..=EXAMPLE.find("[[registry]]").unwrap() - 2];
    assert!(matches!(refused(ca, ""), PolicyError::NoAuthority { .. }));
    assert!(matches!(
        refused(ca, "ca = \"none\"\n"),
        PolicyError::Certificate { .. }
    ));
    let message = said(ca, "ca = \"-----BEGIN PRIVATE KEY-----\"\n");
    assert!(message.contains("private key"), "{message}");
    assert!(matches!(
        refused("http://10.0.2.2:5000", "https://10.0.2.2:5000"),
        PolicyError::NoAuthority { .. }
    ));
    assert!(matches!(
        refused("endpoint = \"http://10.0.2.2:5000\"\n", ""),
        PolicyError::NoAuthority { .. }
    ));
}

#[test]
fn digests_are_mandatory() {
    let digest = format!("@sha256:{}", "11".repeat(32));
    assert!(matches!(refused(&digest, ":latest"), PolicyError::Name { .. }));
    assert!(matches!(refused(&digest, ""), PolicyError::Name { .. }));
    let artifact = format!("@sha256:{}", "22".repeat(32));
    let message = said(&artifact, ":v1");
    assert!(
        message.starts_with("policy, model \"models/demo\" artifact:"),
        "{message}"
    );
}

#[test]
fn paths_are_absolute_normalised_and_apart() {
    for bad in ["models", "/models/../etc", "/models/", "/models//demo"] {
        assert!(matches!(
            refused("destination = \"/models/demo\"", &format!("destination = {bad:?}")),
            PolicyError::Name { .. }
        ));
    }
    for bad in [
        "/",
        "/proc",
        "/proc/sys",
        "/dev/shm",
        "/dev/x",
        "/sys/fs",
        "/run",
        "/run/x",
        "/tmp",
        "/tmp/x",
    ] {
        let error = refused("destination = \"/models/demo\"", &format!("destination = {bad:?}"));
        assert!(matches!(error, PolicyError::Overlap { .. }), "{bad}: {error}");
    }
    assert!(matches!(
        refused("destination = \"/tmp\"", "destination = \"/models\""),
        PolicyError::Overlap { .. }
    ));
    assert!(matches!(
        refused("cwd = \"/\"", "cwd = \"work\""),
        PolicyError::Name { .. }
    ));
}

#[test]
fn names_are_unique_and_refer_to_something() {
    let table = |name: &str| {
        let start = EXAMPLE.find(&format!("[[{name}]]")).unwrap();
        let rest = &EXAMPLE[start + 2..];
        let ends = ["\n[[registry]]", "\n[[container]]", "\n[[model]]"];
        let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
        format!("[[{}\n", &rest[..end])
    };
    for name in ["registry", "container", "model"] {
        let twice = format!("{EXAMPLE}\n{}", table(name));
        match Policy::parse(&twice) {
            Err(PolicyError::Duplicate { what, .. }) => assert_eq!(what, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(matches!(
        refused("model = \"models/demo\"", "model = \"models/other\""),
        PolicyError::Dangling { what: "model", .. }
    ));
    assert!(matches!(
        refused("name = \"localhost:5000\"", "name = \"localhost:5001\""),
        PolicyError::Dangling { what: "registry", .. }
    ));
    assert!(matches!(
        refused(
            "[\"kbs:///demo/model-kek/1\"]",
            "[\"kbs:///demo/model-kek/1\", \"kbs:///demo/model-kek/1\"]"
        ),
        PolicyError::Duplicate { what: "key", .. }
    ));
    assert!(matches!(
        refused("\"HOME=/tmp\"", "\"PATH=/tmp\""),
        PolicyError::Duplicate { what: "variable", .. }
    ));
}

#[test]
fn sizes_and_counts_are_bounded() {
    for (from, to) in [
        ("bytes = 1716800", "bytes = 0"),
        ("bytes = 1716800", "bytes = 17592186044417"),
        ("size-mib = 64", "size-mib = 0"),
        ("size-mib = 64", "size-mib = 1048577"),
        ("uid = 65534", "uid = 4294967295"),
        ("keys = [\"kbs:///demo/model-kek/1\"]", "keys = []"),
    ] {
        let error = refused(from, to);
        assert!(matches!(error, PolicyError::Range { .. }), "{to}: {error}");
    }
    let model = &EXAMPLE[EXAMPLE.find("[[model]]").unwrap()..];
    let zero = EXAMPLE.replace(model, &model.replace("version = 1", "version = 0"));
    assert!(matches!(Policy::parse(&zero), Err(PolicyError::Range { .. })));
    let many = format!("args = [{}]", "\"a\",".repeat(1025));
    let args = &EXAMPLE[EXAMPLE.find("args = ").unwrap()..EXAMPLE.find("\nenv").unwrap()];
    assert!(matches!(refused(args, &many), PolicyError::Range { found: 1025, .. }));
    assert!(matches!(
        refused(args, "args = []"),
        PolicyError::Range { found: 0, .. }
    ));
    assert!(matches!(refused(args, "args = [\"\"]"), PolicyError::Text { .. }));
    assert!(matches!(
        refused(args, r#"args = ["a\u0000"]"#),
        PolicyError::Text { .. }
    ));
}

#[test]
fn values_are_from_their_lists() {
    assert!(matches!(
        refused("signals = \"any\"", "signals = \"some\""),
        PolicyError::Choice { .. }
    ));
    assert!(matches!(
        refused("signals = \"any\"", "signals = [\"TERM\"]"),
        PolicyError::Signal { .. }
    ));
    assert!(matches!(
        refused("memlock-bytes = 0", "memlock-bytes = \"much\""),
        PolicyError::Choice { .. }
    ));
    assert!(matches!(
        refused("stdio = \"allow\"", "stdio = \"maybe\""),
        PolicyError::Choice { .. }
    ));
    assert!(matches!(
        refused("capabilities = []", "capabilities = [\"ROOT\"]"),
        PolicyError::Capability { .. }
    ));
    assert!(matches!(
        refused("hostname = \"\"", "hostname = \"a b\""),
        PolicyError::Name { .. }
    ));
    assert!(matches!(refused("\"HOME=/tmp\"", "\"HOME\""), PolicyError::Text { .. }));
    assert!(matches!(refused("\"HOME=/tmp\"", "\"=x\""), PolicyError::Text { .. }));
    assert!(matches!(
        refused("image-keys = [\"kbs:///demo/image-kek/1\"]", "require-encrypted = true"),
        PolicyError::EncryptedWithoutKey { .. }
    ));
}

#[test]
fn signals_allow_what_they_name_and_kill() {
    let any = Signals::Any;
    let term = Signals::Only(["SIGTERM".parse().unwrap()].into());
    assert!(any.allows(1) && any.allows(64) && !any.allows(0) && !any.allows(65));
    assert!(term.allows(15) && term.allows(9) && !term.allows(1) && !term.allows(34));
}

/// Every key of the policy, each with another value than its default.
const EVERYTHING: &str = r#"
[pod]
sysctl = ["net.*", "kernel.sem"]
forward-ports = [8080, 80]
share-process-namespace = true

[[container]]
name = "free"
match = "image"
image = "localhost:5000/demo/tools@sha256:3333333333333333333333333333333333333333333333333333333333333333"
instances = "any"
args = "any"
env-allow = ["HOSTNAME", "KUBERNETES_*", "*"]
cwd = "any"
user = "any"
capabilities = "any"
privileged = true
new-privileges = true
exec = "any"
terminal = true
readonly-rootfs = "any"
hostname = "free"
stdio = "deny"
memlock-bytes = "unlimited"
rlimits = "any"
seccomp = "host"
masked-paths = "any"
signals = ["SIGTERM"]
volumes = "any"

[[container]]
name = "strict"
image = "localhost:5000/demo/tools@sha256:3333333333333333333333333333333333333333333333333333333333333333"
instances = 3
args = ["/bin/strict"]
user = "image"
exec = [["/bin/health"], ["/bin/sh", "-c", "date"]]

[[container.volume]]
destination = "/config"
kind = "config-map"
read-only = false

[[container.volume]]
destination = "/cache"
kind = "empty-dir"
"#;

#[test]
fn everything_that_can_be_said_survives_writing_and_reading() {
    let policy = Policy::parse(&format!("{EXAMPLE}{EVERYTHING}")).unwrap();
    let text = policy.to_toml();
    assert_eq!(Policy::parse(&text).unwrap(), policy, "{text}");
    let free = policy.container("free").unwrap();
    assert!(free.args.is_any() && free.cwd.is_any() && free.capabilities.is_any() && free.exec.is_any());
    assert!(free.readonly_rootfs.is_any() && free.volumes.is_any() && free.instances.is_any());
    assert_eq!((free.matching, &free.user), (Match::Image, &UserPolicy::Any));
    assert_eq!((free.rlimits, free.seccomp), (Rlimits::Any, Seccomp::Host));
    assert_eq!(free.masked_paths, MaskedPaths::Any);
    assert!(free.privileged && free.new_privileges);
    let strict = policy.container("strict").unwrap();
    assert_eq!((strict.instances, &strict.user), (Rule::Only(3), &UserPolicy::Image));
    let volumes: Vec<_> = strict
        .volumes
        .only()
        .unwrap()
        .iter()
        .map(|volume| volume.read_only)
        .collect();
    assert_eq!(
        volumes,
        [false, false],
        "an empty-dir is writable unless the policy says otherwise"
    );
    assert_eq!(strict.exec.only().unwrap().len(), 2);
}

#[test]
fn what_is_not_said_is_denied() {
    let server = example().container("server").unwrap().clone();
    assert_eq!(server.matching, Match::Name);
    assert_eq!(server.instances, Rule::Only(1));
    assert_eq!((server.exec, server.volumes), (Rule::Only(vec![]), Rule::Only(vec![])));
    assert_eq!((server.rlimits, server.seccomp), (Rlimits::Named, Seccomp::Agent));
    assert_eq!(server.masked_paths, MaskedPaths::Agent);
    assert!(!server.privileged && !server.new_privileges && server.env_allow.is_empty());
    let pod = example().pod().clone();
    assert!(pod.sysctl.is_empty() && !pod.share_process_namespace);
    assert_eq!(pod.forward_ports, Rule::Only(BTreeSet::new()));
}

#[test]
fn a_broker_is_needed_for_keys_alone() {
    let broker = &EXAMPLE[EXAMPLE.find("[kbs]").unwrap()..EXAMPLE.find("[[registry]]").unwrap()];
    assert_eq!(
        refused(broker, ""),
        PolicyError::NoBroker {
            key: "kbs:///demo/image-kek/1".to_owned()
        }
    );
    let model = &EXAMPLE[EXAMPLE.find("[[model]]").unwrap()..];
    let mount = &EXAMPLE[EXAMPLE.find("[[container.mount]]").unwrap()..EXAMPLE.find("[[container.tmpfs]]").unwrap()];
    let plain = EXAMPLE
        .replace(model, "")
        .replace(mount, "")
        .replace(broker, "")
        .replace("image-keys = [\"kbs:///demo/image-kek/1\"]\n", "");
    let policy = Policy::parse(&plain).unwrap();
    assert!(policy.kbs().is_none() && policy.key_ids().is_empty());
    assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
}

#[test]
fn no_text_panics() {
    let text = format!("{EXAMPLE}{EVERYTHING}");
    for end in EXAMPLE.len()..text.len() {
        if let Some(text) = text.get(..end) {
            let _ = Policy::parse(text);
        }
    }
    for end in 0..EXAMPLE.len() {
        if let Some(text) = EXAMPLE.get(..end) {
            let _ = Policy::parse(text);
        }
    }
    for start in 0..EXAMPLE.len() {
        if let Some(text) = EXAMPLE.get(start..) {
            let _ = Policy::parse(text);
        }
    }
}
