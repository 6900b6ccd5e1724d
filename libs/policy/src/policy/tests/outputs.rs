//! Datasets and outputs, each of their rules broken in turn.

use super::*;
use crate::policy::{OutputPolicy, SealedKind};

const OUTPUT: &str = r#"
[output]
container = "server"
destination = "/output"
name = "models/demo"
version = 2
repository = "localhost:5000/models/tuned"
key = "kbs:///demo/output-kek/1"
max-bytes = 4096
"#;

/// The example with a dataset and an output, in which the example's model is version 1.
fn job() -> String {
    let zeros = "0".repeat(64);
    let mount = "[[container.mount]]\ndestination = \"/data\"\ndataset = \"datasets/demo\"\n\n[[model]]";
    format!(
        "{}\n[[dataset]]\nname = \"datasets/demo\"\nversion = 3\nartifact = \"localhost:5000/datasets/demo@sha256:{zeros}\"\n\
         keys = [\"kbs:///demo/data-kek/1\"]\nbytes = 100\n{OUTPUT}",
        EXAMPLE.replacen("[[model]]", mount, 1)
    )
}

fn with(from: &str, to: &str) -> Result<Policy, PolicyError> {
    let text = job().replacen(from, to, 1);
    assert_ne!(text, job(), "{from:?} is not in the job");
    Policy::parse(&text)
}

fn refused(from: &str, to: &str) -> String {
    with(from, to).expect_err("refused").to_string()
}

#[test]
fn a_job_reads_datasets_and_leaves_an_output() {
    let policy = Policy::parse(&job()).unwrap();
    let names: Vec<&str> = policy.sealed().map(|sealed| sealed.name.as_str()).collect();
    assert_eq!(names, ["models/demo", "datasets/demo"]);
    assert_eq!((policy.models().len(), policy.datasets().len()), (1, 1));
    assert_eq!(policy.model_bytes(), 1_716_800 + 100);
    assert_eq!(policy.sealed_as("datasets/demo").unwrap().version, 3);
    assert!(policy.model("datasets/demo").is_none());
    let server = policy.container("server").unwrap();
    let kinds: Vec<_> = server.mounts.iter().map(|mount| mount.kind).collect();
    assert_eq!(kinds, [SealedKind::Model, SealedKind::Dataset]);
    assert_eq!(server.output.as_ref().unwrap().as_str(), "/output");
    assert_eq!(
        *policy.output().unwrap(),
        OutputPolicy {
            container: "server".into(),
            destination: "/output".parse().unwrap(),
            name: "models/demo".into(),
            version: 2,
            registry: "localhost:5000".parse().unwrap(),
            repository: "models/tuned".into(),
            key: "kbs:///demo/output-kek/1".parse().unwrap(),
            max_bytes: 4096,
        }
    );
    let output = policy.output().unwrap();
    assert_eq!((output.tag().as_str(), output.record_tag().as_str()), ("v2", "v2.run"));
    let keys: Vec<&str> = policy.key_ids().into_iter().map(KeyId::as_str).collect();
    assert!(keys.contains(&"kbs:///demo/output-kek/1") && keys.contains(&"kbs:///demo/data-kek/1"));
    assert_eq!(Policy::parse(&policy.to_toml()).unwrap(), policy);
    assert!(example().output().is_none());
}

#[test]
fn an_output_needs_its_container_registry_and_broker() {
    assert!(refused("container = \"server\"", "container = \"other\"").contains("no [[container]] is named \"other\""));
    assert!(refused("\"localhost:5000/models/tuned\"", "\"other/models/tuned\"").contains("no [[registry]] is named"));
    for bad in [
        "models/tuned",
        "localhost:5000",
        "localhost:5000/a:tag",
        "localhost:5000/A",
        "",
    ] {
        let said = refused("\"localhost:5000/models/tuned\"", &format!("{bad:?}"));
        assert!(said.contains("output repository"), "{bad}: {said}");
    }
    assert!(refused("kbs:///demo/output-kek/1", "file:///x").contains("output key"));
    let kbs = EXAMPLE.find("[kbs]").unwrap()..EXAMPLE.find("[[registry]]").unwrap();
    let none = job().replacen(&EXAMPLE[kbs], "", 1);
    assert!(matches!(Policy::parse(&none), Err(PolicyError::NoBroker { .. })));
}

#[test]
fn an_output_counts_up() {
    let tail = "version = 2\nrepository";
    for low in ["version = 0\nrepository", "version = 1\nrepository"] {
        assert!(refused(tail, low).contains("output version"), "{low}");
    }
    // Another name starts where it likes.
    assert!(
        with(
            "name = \"models/demo\"\nversion = 2",
            "name = \"models/new\"\nversion = 1"
        )
        .is_ok()
    );
    assert!(refused("name = \"models/demo\"\nversion = 2", "name = \"Models\"\nversion = 2").contains("output name"));
    for bad in ["max-bytes = 0", "max-bytes = 17592186044417"] {
        assert!(refused("max-bytes = 4096", bad).contains("output max-bytes"), "{bad}");
    }
}

#[test]
fn an_output_is_one_containers_and_one_users() {
    let user = "user = { uid = 65534, gid = 65534, additional-gids = [] }";
    for other in ["user = \"image\"", "user = \"any\""] {
        assert!(refused(user, other).contains("user by number"), "{other}");
    }
    for number in ["2", "\"any\""] {
        let said = refused(user, &format!("{user}\ninstances = {number}"));
        assert!(said.contains("one instance"), "{said}");
    }
}

#[test]
fn an_output_has_a_place_of_its_own() {
    for taken in ["/models/demo", "/models", "/data/out", "/proc/x", "/dev/shm", "/"] {
        let said = refused("destination = \"/output\"", &format!("destination = {taken:?}"));
        assert!(said.contains("output") && said.contains("overlaps"), "{taken}: {said}");
    }
    assert!(refused("destination = \"/output\"", "destination = \"output\"").contains("must be absolute"));
}

#[test]
fn a_mount_is_of_one_thing_that_is_there() {
    let mount = "dataset = \"datasets/demo\"\n\n[[model]]";
    for (other, said) in [
        ("dataset = \"models/demo\"\n\n[[model]]", "no [[dataset]] is named"),
        ("model = \"datasets/demo\"\n\n[[model]]", "no [[model]] is named"),
        (
            "dataset = \"datasets/demo\"\nmodel = \"models/demo\"\n\n[[model]]",
            "name one",
        ),
        ("\n\n[[model]]", "name one"),
    ] {
        assert!(refused(mount, other).contains(said), "{other}");
    }
    // One space of names: a name is in the sealing, and the kind is not.
    let twice = job().replace("datasets/demo\"\nversion", "models/demo\"\nversion");
    assert!(matches!(Policy::parse(&twice), Err(PolicyError::Duplicate { .. })));
}
