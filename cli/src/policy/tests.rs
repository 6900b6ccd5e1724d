//! From a workload and a registry to a policy that the guest reads.

mod kubernetes;

use std::fs;
use std::path::PathBuf;

use cella_policy::{Provenance, Rule, Stdio, User, UserPolicy, VolumeKind};
use clap::Parser as _;

use super::*;
use crate::image::ImageCommand;
use crate::model::ModelCommand;
use crate::test_registry::TestRegistry;

#[derive(Debug, clap::Parser)]
enum Cli {
    #[command(subcommand)]
    Image(ImageCommand),
    #[command(subcommand)]
    Model(ModelCommand),
    #[command(subcommand)]
    Policy(PolicyCommand),
}

/// A desk with a registry in reach, an encrypted image and a sealed model in it.
struct Desk {
    dir: tempfile::TempDir,
    registry: TestRegistry,
}

const CA: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

impl Desk {
    async fn new() -> Self {
        let desk = Self {
            dir: tempfile::tempdir().unwrap(),
            registry: TestRegistry::start().await,
        };
        fs::create_dir(desk.path("tree")).unwrap();
        fs::write(desk.path("tree/server"), vec![1; 5000]).unwrap();
        fs::write(desk.path("kbs.pem"), CA).unwrap();
        desk.build("65534:65534", "plain").await.unwrap();
        desk.run("image encrypt oci:{}/plain {R}/demo/server:v1 --key kbs:///demo/image-kek/1 --key-file {}/ikek")
            .await
            .unwrap();
        desk.run("model demo {}/model.gguf --layers 1 --embd 64 --ff 32")
            .await
            .unwrap();
        desk.run(
            "model seal {}/model.gguf --name models/demo --version 3 --key kbs:///demo/model-kek/1 --key-file {}/mkek \
             --out {}/sealed",
        )
        .await
        .unwrap();
        desk.run("model push {}/sealed {R}/models/demo:v3").await.unwrap();
        desk
    }

    /// An image that runs as `user`, in the layout `out`.
    async fn build(&self, user: &str, out: &str) -> anyhow::Result<String> {
        self.run(&format!(
            "image build --from-dir {{}}/tree --tag demo:v1 --entrypoint /server --cmd=-m --env A=b --user {user} \
             --workdir /work --out {{}}/{out}"
        ))
        .await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command line; `{}` is the desk's directory and `{R}` its registry.
    async fn run(&self, line: &str) -> anyhow::Result<String> {
        let line = line
            .replace("{}", self.dir.path().to_str().unwrap())
            .replace("{R}", &self.registry.name);
        match Cli::try_parse_from(["cellactl"].into_iter().chain(line.split_whitespace()))? {
            Cli::Image(command) => crate::image::run(command).await,
            Cli::Model(command) => crate::model::run(command).await,
            Cli::Policy(command) => Ok(run(command).await?),
        }
    }

    fn workload(&self) -> String {
        WORKLOAD.replace("{R}", &self.registry.name)
    }

    async fn write(&self, workload: &str) -> anyhow::Result<String> {
        fs::write(self.path("workload.toml"), workload).unwrap();
        self.run("policy write --from {}/workload.toml --out {}/initdata.toml")
            .await
    }

    fn policy(&self) -> Policy {
        let document = fs::read(self.path("initdata.toml")).unwrap();
        initdata::parse(&document, Algorithm::Sha256).unwrap().policy
    }
}

const WORKLOAD: &str = r#"
[kbs]
url = "https://10.0.2.2:8443"
ca = "kbs.pem"

[[registry]]
name = "{R}"
endpoint = "http://10.0.2.2:5000"

[[container]]
name = "server"
image = "{R}/demo/server:v1"
env = ["C=d"]

[[container.mount]]
destination = "/models/demo"
model = "models/demo"

[[container.tmpfs]]
destination = "/tmp"
size-mib = 16

[[model]]
artifact = "{R}/models/demo:v3"
"#;

#[tokio::test]
async fn a_workload_becomes_the_policy_that_containerd_will_match() {
    let desk = Desk::new().await;
    let said = desk.write(&desk.workload()).await.unwrap();
    let policy = desk.policy();
    let server = policy.container("server").unwrap();
    assert_eq!(server.args.only().unwrap(), &["/server", "-m"]);
    assert_eq!(server.env, ["A=b", "C=d"]);
    assert_eq!(server.cwd.only().unwrap().as_str(), "/work");
    let ids = User {
        uid: 65534,
        gid: 65534,
        additional_gids: [].into(),
    };
    assert_eq!(server.user, UserPolicy::Ids(ids));
    assert!(server.require_encrypted);
    assert_eq!(server.readonly_rootfs, Rule::Only(true));
    assert_eq!(server.stdio, Stdio::DENY);
    assert_eq!(server.image_keys[0].as_str(), "kbs:///demo/image-kek/1");
    let model = policy.model("models/demo").unwrap();
    assert_eq!(
        (model.version, model.bytes),
        (3, fs::metadata(desk.path("model.gguf")).unwrap().len())
    );
    assert_eq!(model.keys[0].as_str(), "kbs:///demo/model-kek/1");
    assert_eq!(policy.kbs().unwrap().ca.as_str(), CA);

    let document = fs::read(desk.path("initdata.toml")).unwrap();
    let digest = hex::encode(initdata::digests(&document).sha256);
    assert!(said.contains(&digest) && said.contains("all encrypted"), "{said}");
    assert_eq!(
        desk.run("policy digest {}/initdata.toml").await.unwrap(),
        format!("{digest}\n")
    );
    assert!(!said.contains("DEVELOPMENT") && !said.contains("ANY"), "{said}");
    for command in ["explain", "show"] {
        assert_eq!(
            desk.run(&format!("policy {command} {{}}/initdata.toml")).await.unwrap(),
            said
        );
    }
    let annotation = desk.run("policy annotation {}/initdata.toml").await.unwrap();
    assert_eq!(initdata::inflate_annotation(annotation.trim()).unwrap(), document);
    desk.write(&desk.workload()).await.unwrap();
    assert_eq!(
        fs::read(desk.path("initdata.toml")).unwrap(),
        document,
        "the same workload, the same bytes"
    );
}

/// A workload of one plain image without any key.
const PLAIN: &str = r#"
[[registry]]
name = "{R}"
endpoint = "http://10.0.2.2:5000"

[[container]]
name = "tools"
image = "{R}/demo/tools:v1"
"#;

#[tokio::test]
async fn a_user_by_name_is_left_to_the_image_and_no_key_needs_no_broker() {
    let desk = Desk::new().await;
    for user in ["nobody", "1000:users"] {
        desk.build(user, "named").await.unwrap();
        desk.run("image push {}/named {R}/demo/tools:v1").await.unwrap();
        let said = desk.write(&PLAIN.replace("{R}", &desk.registry.name)).await.unwrap();
        let policy = desk.policy();
        assert_eq!(policy.container("tools").unwrap().user, UserPolicy::Image);
        assert!(policy.kbs().is_none());
        assert!(
            said.contains("the image's own user") && said.contains("does not attest itself"),
            "{said}"
        );
        fs::remove_dir_all(desk.path("named")).unwrap();
    }
    for bad in ["no/body", ":", "a:b:c"] {
        assert!(desk.build(bad, "bad").await.is_err(), "{bad}");
    }
}

/// Everything that a policy can leave to the host, and the words for it.
const FREEDOMS: [(&str, &str); 13] = [
    ("args = \"any\"", "run any program of the image"),
    ("exec = \"any\"", "run any program beside it"),
    ("cwd = \"any\"", "in any directory"),
    ("user = \"any\"", "as any user, root among them"),
    ("capabilities = \"any\"", "any capability"),
    ("privileged = true", "nothing in the guest is kept from it"),
    ("new-privileges = true", "may gain privileges"),
    ("readonly-rootfs = \"any\"", "make its root file system writable"),
    ("volumes = \"any\"", "mount files of its own"),
    ("rlimits = \"any\"", "any resource limit"),
    ("masked-paths = \"any\"", "show what the agent hides"),
    ("instances = \"any\"", "any number of it at once"),
    ("env-allow = [\"*\"]", "such as LD_PRELOAD"),
];

#[tokio::test]
async fn every_any_is_named_as_a_development_freedom() {
    let desk = Desk::new().await;
    desk.run("image push {}/plain {R}/demo/tools:v1").await.unwrap();
    let plain = PLAIN.replace("{R}", &desk.registry.name);
    for (key, words) in FREEDOMS {
        let said = desk.write(&format!("{plain}{key}\n")).await.unwrap();
        assert!(said.starts_with("DEVELOPMENT POLICY"), "{said}");
        let (_, freedoms) = said.split_once("Left to the host: development freedoms\n").unwrap();
        let (first, _) = freedoms.split_once('\n').unwrap();
        assert!(
            first.contains(words) && first.starts_with("  \"tools\": the host may") || key.starts_with("new"),
            "{first}"
        );
        assert_eq!(
            freedoms.lines().take_while(|line| !line.is_empty()).count(),
            1,
            "{freedoms}"
        );
    }
    let all: String = FREEDOMS.iter().map(|(key, _)| format!("{key}\n")).collect();
    let said = desk
        .write(&format!(
            "[pod]\nforward-ports = \"any\"\n[network]\negress = \"any\"\ningress = \"any\"\n{plain}{all}"
        ))
        .await
        .unwrap();
    let of_the_pod = [
        "connect to every TCP port",
        "send what they hold to anybody",
        "use every port",
    ];
    for words in FREEDOMS.iter().map(|(_, words)| words).chain(&of_the_pod) {
        assert!(said.contains(words), "{words}: {said}");
    }
    fs::write(desk.path("cella.toml"), desk.policy().to_toml()).unwrap();
    let explained = desk.run("policy explain {}/cella.toml").await.unwrap();
    let (policy, _) = said.split_once("\ninitdata: ").unwrap();
    assert_eq!(explained, policy, "the policy alone says the same");
}

#[tokio::test]
async fn every_key_of_a_workload_reaches_the_policy() {
    let desk = Desk::new().await;
    desk.run("image push {}/plain {R}/demo/tools:v1").await.unwrap();
    let plain = PLAIN.replace("{R}", &desk.registry.name);
    let more = r#"
match = "image"
instances = 2
env-allow = ["HOSTNAME", "KUBERNETES_*"]
exec = [["/bin/health", "-q"]]
terminal = true
seccomp = "host"

[[container.volume]]
destination = "/config"
kind = "config-map"

[pod]
sysctl = ["net.core.somaxconn"]
forward-ports = [8080]
share-process-namespace = true
"#;
    let said = desk.write(&format!("{plain}{more}")).await.unwrap();
    let policy = desk.policy();
    let tools = policy.container("tools").unwrap();
    assert_eq!(tools.instances, Rule::Only(2));
    assert_eq!(tools.exec.only().unwrap(), &[["/bin/health", "-q"]]);
    assert_eq!(tools.env, ["A=b"], "a terminal's variable is the guest's business");
    assert_eq!(tools.volumes.only().unwrap()[0].kind, VolumeKind::ConfigMap);
    assert!(policy.pod().forwards(8080) && policy.pod().allows_sysctl("net.core.somaxconn"));
    for words in [
        "called        by its name, and by any",
        "at once       2",
        "and the host's HOSTNAME, KUBERNETES_*",
        "host runs     /bin/health -q",
        "volume        config-map at /config, read-only: files of the host's",
        "host may set  kernel parameter net.core.somaxconn",
        "host reaches  TCP port 8080",
        "may see and signal each other's",
        "the host's on top of it",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("DEVELOPMENT"), "{said}");
}

#[tokio::test]
async fn digests_pin_what_the_tag_meant() {
    let desk = Desk::new().await;
    desk.write(&desk.workload()).await.unwrap();
    let before = desk.policy().container("server").unwrap().image.clone();
    desk.run("image encrypt oci:{}/plain {R}/demo/server:v1 --key kbs:///demo/image-kek/1 --key-file {}/ikek")
        .await
        .unwrap();
    desk.write(&desk.workload()).await.unwrap();
    let after = desk.policy().container("server").unwrap().image.clone();
    assert_ne!(before.digest(), after.digest());
    let pinned = desk
        .workload()
        .replace("demo/server:v1", &format!("demo/server@{}", before.digest()));
    desk.write(&pinned).await.unwrap();
    assert_eq!(desk.policy().container("server").unwrap().image, before);
}

#[tokio::test]
async fn the_digest_that_inspect_says_pins_the_model() {
    let desk = Desk::new().await;
    let said = desk.run("model inspect {R}/models/demo:v3").await.unwrap();
    let (_, pin) = said.split_once("pin  ").unwrap();
    let pin: Vec<_> = pin.lines().take(2).map(str::trim).collect();
    let workload = desk.workload();
    desk.write(&format!("{workload}{}", pin.join("\n"))).await.unwrap();
    let Provenance::Digest(Some(digest)) = desk.policy().models()[0].provenance else {
        panic!("not pinned: {said}");
    };
    assert_eq!(pin[1], format!("digest = \"{digest}\""));
}

#[tokio::test]
async fn what_contradicts_the_registry_is_refused() {
    let desk = Desk::new().await;
    let refused = async |from: &str, to: &str| {
        let changed = WORKLOAD.replacen(from, to, 1);
        assert_ne!(changed, WORKLOAD, "{from}");
        let text = changed.replace("{R}", &desk.registry.name);
        let error = desk.write(&text).await.unwrap_err();
        assert!(!desk.path("initdata.toml").exists(), "nothing is written");
        format!("{error:#}")
    };
    assert!(
        refused("[[model]]", "[[model]]\nversion = 2")
            .await
            .contains("says version 2, the artifact 3")
    );
    let other = format!(
        "[[model]]\nprovenance = \"digest\"\ndigest = \"blake3:{}\"",
        "7".repeat(64)
    );
    assert!(refused("[[model]]", &other).await.contains("says digest blake3:7777"));
    assert!(
        refused("[[model]]", "[[model]]\nname = \"models/other\"")
            .await
            .contains("models/other")
    );
    assert!(
        refused("models/demo:v3", "models/demo:v4")
            .await
            .contains("does not have")
    );
    assert!(
        refused("models/demo:v3", "demo/server:v1")
            .await
            .contains("not a sealed model")
    );
    assert!(
        refused("name = \"server\"", "name = \"server\"\nsurprise = 1")
            .await
            .contains("`surprise`")
    );
    assert!(refused("\"C=d\"", "\"API_KEY=d\"").await.contains("a policy is public"));
    assert!(
        refused("url = \"https", "url = \"http")
            .await
            .contains("plain http is refused")
    );
    assert!(refused("ca = \"kbs.pem\"", "").await.contains("https needs `ca`"));
    assert!(refused("ca = \"kbs.pem\"", "ca = \"ikek\"").await.contains("ikek"));
    assert!(
        refused("model = \"models/demo\"", "model = \"models/x\"")
            .await
            .contains("no [[model]] is named")
    );
    assert!(
        refused("image = \"", "image = \"other.example/")
            .await
            .contains("not a reference")
    );
    assert!(
        refused("image = \"{R}/demo/server:v1\"", "image = \"other.example/a:b\"")
            .await
            .contains("other.example")
    );
}

#[tokio::test]
async fn flags_replace_what_the_file_says() {
    let desk = Desk::new().await;
    fs::write(desk.path("other.pem"), CA).unwrap();
    fs::write(desk.path("workload.toml"), desk.workload()).unwrap();
    let line =
        "policy write --from {}/workload.toml --kbs https://kbs.example --kbs-ca {}/other.pem --out {}/initdata.toml";
    desk.run(line).await.unwrap();
    assert_eq!(desk.policy().kbs().unwrap().url.to_string(), "https://kbs.example:443");
    let unknown = format!("{line} --registry-ca other=x");
    assert!(
        desk.run(&unknown)
            .await
            .unwrap_err()
            .to_string()
            .contains("no [[registry]]")
    );
}

#[tokio::test]
async fn blobs_that_are_there_are_not_sent_again() {
    let desk = Desk::new().await;
    let uploads = desk.registry.uploads();
    let said = desk.run("model push {}/sealed {R}/models/demo:again").await.unwrap();
    assert_eq!(desk.registry.uploads(), uploads);
    assert!(said.contains("/models/demo@sha256:"), "{said}");
    assert!(
        desk.run("model push {}/sealed {R}/models/demo@sha256:00")
            .await
            .is_err()
    );
    let inspected = desk.run("model inspect {R}/models/demo:again").await.unwrap();
    assert!(inspected.contains("models/demo version 3"), "{inspected}");
}

#[tokio::test]
async fn damaged_layers_are_not_encrypted() {
    let desk = Desk::new().await;
    desk.run("image push {}/plain {R}/demo/plain:v1").await.unwrap();
    desk.registry.damage(0);
    let line = "image encrypt {R}/demo/plain:v1 oci:{}/again --key kbs:///demo/image-kek/1 --key-file {}/ikek";
    let error = desk.run(line).await.unwrap_err();
    assert!(format!("{error:#}").contains("digest"), "{error:#}");
    assert!(!desk.path("again/index.json").exists());
}

#[tokio::test]
async fn documents_that_are_none_are_refused() {
    let desk = Desk {
        dir: tempfile::tempdir().unwrap(),
        registry: TestRegistry::start().await,
    };
    fs::write(desk.path("initdata.toml"), "version = 1").unwrap();
    for command in ["show", "digest", "annotation"] {
        assert!(desk.run(&format!("policy {command} {{}}/initdata.toml")).await.is_err());
        assert!(desk.run(&format!("policy {command} {{}}/none")).await.is_err());
    }
}
