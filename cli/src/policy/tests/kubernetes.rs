//! From a pod's YAML and an image to a policy; what changes between two; and what a guest would answer.

use super::*;

const BASE: &str = r#"
[[registry]]
name = "{R}"
endpoint = "http://10.0.2.2:5000"

[[container]]
name = "server"
stdio = "redact"
"#;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext: { runAsNonRoot: true }
  containers:
  - name: server
    image: {R}/demo/tools:v1
    args: ["--port", "8080"]
    env: [{ name: MODE, value: fast }]
    ports: [{ containerPort: 8080 }]
    readinessProbe: { exec: { command: [/bin/alive] } }
"#;

async fn desk() -> Desk {
    let desk = Desk::new().await;
    desk.run("image push {}/plain {R}/demo/tools:v1").await.unwrap();
    let write = |name: &str, text: &str| fs::write(desk.path(name), text.replace("{R}", &desk.registry.name)).unwrap();
    write("base.toml", BASE);
    write("pod.yaml", POD);
    write("other.yaml", &POD.replace("containerPort: 8080", "containerPort: 9090"));
    desk
}

#[tokio::test]
async fn a_pods_yaml_and_its_image_become_a_policy() {
    let desk = desk().await;
    let line = "policy from-pod {}/pod.yaml --with {}/base.toml --out {}/initdata.toml";
    let said = desk.run(line).await.unwrap();
    let policy = desk.policy();
    let server = policy.container("server").unwrap();
    assert_eq!(server.args.only().unwrap(), &["/server", "--port", "8080"]);
    assert_eq!(server.env, ["A=b", "MODE=fast"]);
    assert_eq!(server.cwd.only().unwrap().as_str(), "/work");
    assert!(matches!(&server.user, UserPolicy::Ids(user) if user.uid == 65534));
    assert_eq!(server.readonly_rootfs, Rule::Only(false), "as Kubernetes has it");
    assert_eq!(server.exec.only().unwrap(), &[["/bin/alive"]]);
    assert_eq!(server.stdio.stdout, cella_policy::Output::Redact);
    assert!(server.image.to_string().contains("/demo/tools@sha256:"));
    assert!(
        said.contains("clients use   8080/tcp") && said.contains("speaks to     nobody"),
        "{said}"
    );
    assert!(!said.contains("DEVELOPMENT"), "{said}");
    let document = fs::read(desk.path("initdata.toml")).unwrap();

    // The same from a layout: nobody is asked.
    let line = format!("{line} --layout {{R}}/demo/tools:v1={{}}/plain");
    desk.registry.damage(0);
    desk.run(&line).await.unwrap();
    assert_eq!(fs::read(desk.path("initdata.toml")).unwrap(), document);

    fs::write(
        desk.path("pod.yaml"),
        "kind: Pod\nspec: { hostNetwork: true, containers: [] }",
    )
    .unwrap();
    let error = desk.run(&line).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("line 2: hostNetwork cannot be kept"),
        "{error:#}"
    );
}

#[tokio::test]
async fn a_change_is_said_in_words() {
    let desk = desk().await;
    for (yaml, out) in [("pod", "old"), ("other", "new")] {
        let line = format!("policy from-pod {{}}/{yaml}.yaml --with {{}}/base.toml --out {{}}/{out}.toml");
        desk.run(&line).await.unwrap();
    }
    assert_eq!(
        desk.run("policy diff {}/old.toml {}/old.toml --refuse-more")
            .await
            .unwrap(),
        "The two allow the same.\n"
    );
    assert_eq!(
        desk.run("policy diff {}/old.toml {}/new.toml").await.unwrap(),
        "Newly allowed\n  Guest: clients use 9090/tcp\nNo longer allowed\n  Guest: clients use 8080/tcp\n"
    );
    let refused = desk
        .run("policy diff {}/old.toml {}/new.toml --refuse-more")
        .await
        .unwrap_err();
    assert!(
        refused.to_string().starts_with("1 things are newly allowed"),
        "{refused}"
    );
    // What is not demanded any more is allowed more.
    let old = fs::read_to_string(desk.path("old.toml")).unwrap();
    fs::write(
        desk.path("optional.toml"),
        old.replace("presence = \"running\"", "presence = \"optional\""),
    )
    .unwrap();
    let said = desk.run("policy diff {}/old.toml {}/optional.toml").await.unwrap();
    assert!(
        said.starts_with("Newly allowed\n  Container \"server\": presence no client comes in while it does not run (no longer demanded)\n"),
        "{said}"
    );
}

const SPEC: &str = r#"{
    "ociVersion": "1.2.0",
    "process": {
        "user": {"uid": 65534, "gid": 65534}, "args": ["/server", "--port", "8080"], "env": ["A=b", "MODE=fast"], "cwd": "/work",
        "capabilities": {"bounding": ["CAP_CHOWN"]}, "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]
    },
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/etc/hosts", "type": "bind", "source": "/var/lib/kubelet/pods/u/etc-hosts", "options": ["rbind"]}],
    "annotations": {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "s", "io.kubernetes.cri.container-name": "server"},
    "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc", "path": "/p"}, {"type": "uts", "path": "/p"}, {"type": "network", "path": "/p"}],
        "maskedPaths": ["/proc/kcore"]}
}"#;

#[tokio::test]
async fn a_request_is_judged_beforehand() {
    let desk = desk().await;
    desk.run("policy from-pod {}/pod.yaml --with {}/base.toml --out {}/initdata.toml")
        .await
        .unwrap();
    fs::create_dir(desk.path("bundle")).unwrap();
    let judged = async |spec: &str| {
        fs::write(desk.path("bundle/config.json"), spec).unwrap();
        desk.run("policy test {}/initdata.toml {}/bundle").await
    };
    assert_eq!(judged(SPEC).await.unwrap(), "allowed: create container \"server\"\n");
    for (from, to, words) in [
        ("\"8080\"]", "\"8081\"]", "args[2] is \"8081\", allowed is \"8080\""),
        ("MODE=fast", "MODE=slow", "variable \"MODE\" is \"slow\""),
        ("\"uid\": 65534", "\"uid\": 0", "uid is 0"),
        ("CAP_CHOWN", "CAP_SYS_ADMIN", "capability \"CAP_SYS_ADMIN\""),
        (
            "{\"type\": \"network\", \"path\": \"/p\"}",
            "{\"type\": \"x\"}",
            "the host's \"network\" namespace",
        ),
        (
            "/var/lib/kubelet/pods/u/etc-hosts",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~secret/s",
            "volumes of kind secret",
        ),
        (
            "container-name\": \"server\"",
            "container-name\": \"other\"",
            "it names no such container",
        ),
    ] {
        let changed = SPEC.replace(from, to);
        assert_ne!(changed, SPEC);
        let error = judged(&changed).await.unwrap_err().to_string();
        assert!(
            error.contains("denied\n") && error.contains("policy denies") && error.contains(words),
            "{error}"
        );
    }
    let host_path = SPEC
        .replace("/var/lib/kubelet/pods/u/etc-hosts\"", "/etc\"")
        .replace("\"/etc/hosts\"", "\"/host\"");
    let error = judged(&host_path).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("a hostPath volume cannot be kept from the host"),
        "{error:#}"
    );
    fs::write(
        desk.path("questions.json"),
        r#"[{"client": "8080/tcp"}, {"start": "server"}, {"client": "8080/tcp"}]"#,
    )
    .unwrap();
    let error = desk
        .run("policy test {}/initdata.toml {}/questions.json")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("1 of 3 denied\nDENIED:  a client at 8080/tcp\n"),
        "{error}"
    );
    fs::write(desk.path("questions.json"), "{\"nothing\": 1}").unwrap();
    assert!(
        desk.run("policy test {}/initdata.toml {}/questions.json")
            .await
            .is_err()
    );
}
