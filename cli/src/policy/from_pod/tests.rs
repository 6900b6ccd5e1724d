//! Pods that become workloads, and what is refused by its line and field. The way through images is tested in `policy::tests`.

use cella_policy::file::PresenceFile;
use cella_policy::initdata::Algorithm;

use super::*;

fn args(accept: &[&str]) -> FromPodArgs {
    FromPodArgs {
        yaml: PathBuf::new(),
        with: None,
        name: None,
        accept: accept.iter().map(ToString::to_string).collect(),
        service: Vec::new(),
        out: super::super::OutArgs {
            kbs: None,
            kbs_ca: None,
            registry_ca: Vec::new(),
            layout: Vec::new(),
            algorithm: Algorithm::Sha256,
            out: PathBuf::new(),
        },
    }
}

fn read(yaml: &str, accept: &[&str]) -> Result<(WorkloadFile, Vec<String>), PodError> {
    workload(yaml, WorkloadFile::default(), &args(accept))
}

fn refused(yaml: &str) -> String {
    read(yaml, &[]).map(|_| ()).unwrap_err().to_string()
}

/// A pod of one container with more in its spec and its container.
fn pod(spec: &str, container: &str) -> String {
    let indent = |text: &str, by: usize| {
        let lines = text.lines().map(|line| format!("{}{line}\n", " ".repeat(by)));
        lines.collect::<String>()
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: shop\nspec:\n{}  containers:\n  - name: server\n    image: registry.example/a:1\n{}",
        indent(spec, 2),
        indent(container, 4)
    )
}

const DEPLOYMENT: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: { name: settings }
data:
  MODE: fast
  app.conf: "a = 1\n"
---
apiVersion: v1
kind: Service
metadata: { name: my-db }
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  replicas: 3
  template:
    metadata:
      labels: { app: web, tier: "1" }
    spec:
      runtimeClassName: cella-snp
      automountServiceAccountToken: false
      securityContext: { fsGroup: 2000, runAsNonRoot: true, sysctls: [{ name: net.core.somaxconn, value: "1024" }] }
      initContainers:
      - name: prepare
        image: registry.example/tools@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        command: ["/bin/prepare"]
      - name: filter
        image: registry.example/filter:2
        restartPolicy: Always
      containers:
      - name: server
        image: registry.example/server:1
        command: ["/bin/server", "--mode=$(MODE)", "--cost=$$(X)", "$(UNSET)"]
        args: ["--port", "8080"]
        workingDir: /srv
        envFrom: [{ configMapRef: { name: settings }, prefix: "" }]
        env:
        - { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
        - { name: POD_IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
        - { name: NS, valueFrom: { fieldRef: { fieldPath: metadata.namespace } } }
        - { name: APP, valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } }
        - { name: URL, value: "http://$(POD_IP)/" }
        - { name: TITLE, value: "mode $(MODE)" }
        - { name: CPUS, valueFrom: { resourceFieldRef: { resource: limits.cpu } } }
        ports:
        - { name: http, containerPort: 8080 }
        - { containerPort: 5353, protocol: UDP }
        readinessProbe: { httpGet: { path: /health, port: http } }
        livenessProbe: { exec: { command: ["/bin/alive", "-q"] } }
        lifecycle: { preStop: { exec: { command: ["/bin/drain"] } } }
        securityContext:
          runAsUser: 1000
          readOnlyRootFilesystem: true
          capabilities: { drop: [ALL], add: [NET_BIND_SERVICE] }
        volumeMounts:
        - { name: scratch, mountPath: /tmp/ }
        - { name: config, mountPath: /etc/app }
        - { name: config, mountPath: /etc/app.conf, subPath: app.conf }
      volumes:
      - { name: scratch, emptyDir: {} }
      - { name: config, configMap: { name: settings } }
"#;

#[test]
fn a_deployment_is_pinned_word_by_word() {
    let (workload, notes) = read(DEPLOYMENT, &[]).unwrap();
    let [prepare, filter, server] = workload.container.as_slice() else {
        panic!("{}", workload.container.len())
    };
    assert_eq!((prepare.presence, prepare.after.len()), (PresenceFile::Completed, 0));
    assert_eq!(filter.presence, PresenceFile::Running);
    assert_eq!(filter.after, ["prepare"]);
    assert_eq!(server.after, ["filter"]);
    let kubernetes = server.kubernetes.as_ref().unwrap();
    assert_eq!(
        kubernetes.command.as_ref().unwrap(),
        &["/bin/server", "--mode=fast", "--cost=$(X)", "$(UNSET)"]
    );
    assert_eq!(kubernetes.args.as_ref().unwrap(), &["--port", "8080"]);
    assert_eq!(
        (kubernetes.user, kubernetes.group, kubernetes.not_root),
        (Some(1000), None, true)
    );
    assert_eq!(kubernetes.groups, [2000]);
    assert_eq!(
        (kubernetes.add.as_slice(), kubernetes.drop.as_slice()),
        (&["NET_BIND_SERVICE".to_owned()][..], &["ALL".to_owned()][..])
    );
    assert_eq!(
        server.env,
        ["MODE=fast", "app.conf=a = 1\n", "NS=shop", "APP=web", "TITLE=mode fast"]
    );
    assert_eq!(
        server.env_allow,
        [
            "POD_NAME=<host-name>",
            "POD_IP=<ip>",
            "URL=<text>",
            "CPUS=<integer>",
            "HOSTNAME=<host-name>",
            "KUBERNETES_*=<service>",
            "MY_DB_*=<service>"
        ]
    );
    assert_eq!(server.cwd.as_deref(), Some("/srv"));
    assert_eq!(
        server.exec,
        Choice::Value(vec![
            vec!["/bin/alive".to_owned(), "-q".to_owned()],
            vec!["/bin/drain".to_owned()]
        ])
    );
    assert_eq!(server.readonly_rootfs, Choice::Value(true));
    let volumes: Vec<(&str, &str, usize)> = server
        .volume
        .iter()
        .map(|volume| (volume.destination.as_str(), volume.kind.as_str(), volume.files.len()))
        .collect();
    assert_eq!(
        volumes,
        [
            ("/tmp", "empty-dir", 0),
            ("/etc/app", "config-map", 2),
            ("/etc/app.conf", "config-map", 1)
        ]
    );
    let digest = cella_oci::Digest::of(b"a = 1\n").to_string();
    assert_eq!(server.volume[1].files["app.conf"], digest);
    assert_eq!(server.volume[2].files[""], digest);
    assert_eq!(
        workload.network.ingress,
        Choice::Value(vec!["8080/tcp".to_owned(), "5353/udp".to_owned()])
    );
    assert_eq!(workload.network.egress, Choice::Value(vec![]), "nobody");
    assert_eq!(workload.pod.sysctl, ["net.core.somaxconn"]);
    assert!(
        notes.iter().any(|note| note.contains("enableServiceLinks")),
        "{notes:?}"
    );
}

#[test]
fn the_documented_pod_opens_the_port_that_its_probes_ask() {
    let (_, yaml) = include_str!("../../../../docs/models.md")
        .split_once("```yaml\n")
        .unwrap();
    let (yaml, _) = yaml.split_once("```").unwrap();
    let ingress = |yaml: &str| read(yaml, &[]).unwrap().0.network.ingress;
    assert_eq!(ingress(yaml), Choice::Value(vec!["8080/tcp".to_owned()]));
    // Where nothing but the probes names it, too.
    let other = yaml.replacen("containerPort: 8080", "containerPort: 9090", 1);
    assert_eq!(
        ingress(&other),
        Choice::Value(vec!["9090/tcp".to_owned(), "8080/tcp".to_owned()])
    );
}

#[test]
fn t1_what_cannot_be_kept_from_the_host_is_refused_by_its_line_and_field() {
    for (spec, container, line, words) in [
        ("hostNetwork: true", "", 7, "hostNetwork cannot be kept from the host"),
        ("hostPID: true", "", 7, "hostPID cannot be kept"),
        ("hostIPC: true", "", 7, "hostIPC cannot be kept"),
        ("hostAliases: [{ ip: 10.0.0.1 }]", "", 7, "hostAliases cannot be kept"),
        (
            "ephemeralContainers: [{ name: x }]",
            "",
            7,
            "ephemeralContainers cannot be kept",
        ),
        (
            "volumes:\n- name: v\n  hostPath: { path: /etc }",
            "",
            9,
            "volume \"v\" hostPath cannot be kept",
        ),
        (
            "volumes:\n- name: v\n  persistentVolumeClaim: { claimName: c }",
            "",
            9,
            "volume \"v\" persistentVolumeClaim cannot be kept",
        ),
        (
            "volumes:\n- name: v\n  csi: { driver: d }",
            "",
            9,
            "volume \"v\" csi cannot be kept",
        ),
        (
            "volumes:\n- name: v\n  image: { reference: r }",
            "",
            9,
            "volume \"v\" image cannot be kept",
        ),
        (
            "volumes:\n- name: v\n  emptyDir: { medium: HugePages }",
            "",
            9,
            "medium is \"HugePages\"",
        ),
        (
            "",
            "securityContext:\n  privileged: true",
            11,
            "container \"server\" securityContext.privileged cannot be kept",
        ),
        (
            "",
            "securityContext: { procMount: Unmasked }",
            10,
            "securityContext.procMount cannot be kept",
        ),
        (
            "",
            "securityContext: { capabilities: { add: [ALL] } }",
            10,
            "securityContext.capabilities.add cannot be kept",
        ),
        (
            "",
            "securityContext: { runAsUser: 4294967295 }",
            10,
            "runAsUser is \"4294967295\"",
        ),
        (
            "",
            "env:\n- name: KEY\n  valueFrom: { secretKeyRef: { name: s, key: k } }",
            12,
            "env KEY valueFrom.secretKeyRef cannot be kept",
        ),
        (
            "",
            "envFrom:\n- secretRef: { name: s }",
            11,
            "envFrom.secretRef cannot be kept",
        ),
        (
            "",
            "envFrom:\n- configMapRef: { name: s }",
            11,
            "envFrom.configMapRef \"s\" cannot be kept",
        ),
        (
            "",
            "env:\n- { name: IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }\nargs: [\"$(IP)\"]",
            12,
            "args[0] cannot be kept",
        ),
        (
            "",
            "env:\n- { name: A, value: yes }",
            11,
            "this must be a text: put it in quotes",
        ),
        (
            "",
            "volumeDevices: [{ name: v, devicePath: /dev/x }]",
            10,
            "volumeDevices cannot be kept",
        ),
        (
            "",
            "volumeMounts: [{ name: none, mountPath: /x }]",
            10,
            "name is \"none\", expected a volume of the pod",
        ),
        (
            "volumes: [{ name: v, emptyDir: {} }]",
            "volumeMounts: [{ name: v, mountPath: /x, mountPropagation: Bidirectional }]",
            11,
            "mountPropagation Bidirectional cannot be kept",
        ),
        ("", "ports: [{ containerPort: 0 }]", 10, "port is \"0\""),
        (
            "",
            "ports: [{ containerPort: 80, protocol: SCTP }]",
            10,
            "protocol is \"SCTP\"",
        ),
        (
            "",
            "livenessProbe: { httpGet: { port: 80, host: other } }",
            10,
            "httpGet.host cannot be kept",
        ),
    ] {
        let said = refused(&pod(spec, container));
        assert!(
            said.starts_with(&format!("line {line}: ")) && said.contains(words),
            "{spec}{container}: {said}"
        );
    }
    assert!(refused("a: [").starts_with("line "));
    assert_eq!(
        refused("kind: Service\nmetadata: { name: x }"),
        "there is no Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob in it"
    );
    assert!(refused("kind: Pod\nmetadata: { name: x }").contains("the pod's spec"));
    assert!(refused("kind: Pod\nspec: { containers: [] }").contains("containers is missing"));
}

#[test]
fn what_is_the_authors_to_accept_says_how() {
    let secret = pod(
        "volumes: [{ name: keys, secret: { secretName: s } }]",
        "volumeMounts: [{ name: keys, mountPath: /keys }]",
    );
    let said = refused(&secret);
    assert!(said.contains("--accept volume/keys"), "{said}");
    let (workload, _) = read(&secret, &["volume/keys"]).unwrap();
    let volume = &workload.container[0].volume[0];
    assert_eq!(
        (volume.kind.as_str(), volume.files.len(), volume.read_only),
        ("secret", 0, Some(true))
    );
    let variable = pod(
        "",
        "env:\n- name: MODE\n  valueFrom: { configMapKeyRef: { name: s, key: k } }",
    );
    assert!(refused(&variable).contains("--accept env/MODE"));
    let (workload, _) = read(&variable, &["env/MODE"]).unwrap();
    assert!(workload.container[0].env_allow.contains(&"MODE=<text>".to_owned()));
    let unused = read(&pod("", ""), &["env/MODE"]).map(|_| ()).unwrap_err();
    assert!(matches!(unused, PodError::NothingToAccept { .. }), "{unused}");
}

#[test]
fn a_pod_of_its_own_knows_its_name_and_a_token_is_a_volume() {
    let named = pod(
        "",
        "env:\n- { name: ME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }",
    );
    let (workload, _) = read(&named, &[]).unwrap();
    let server = &workload.container[0];
    assert_eq!(server.env, ["ME=web"]);
    assert_eq!(
        server.volume[0].destination,
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(server.volume[0].kind, "projected");
    let (workload, _) = read(
        &pod("automountServiceAccountToken: false", "terminationMessagePath: /log"),
        &[],
    )
    .unwrap();
    assert_eq!(workload.container[0].volume[0].kind, "termination-log");
}

#[test]
fn one_workload_is_chosen_by_name() {
    let two = format!(
        "{}---\n{}",
        pod("", ""),
        pod("", "").replace("name: web", "name: other")
    );
    let said = refused(&two);
    assert!(said.contains("pod/web, pod/other"), "{said}");
    let by = |name: &str| {
        let args = FromPodArgs {
            name: Some(name.to_owned()),
            ..args(&[])
        };
        super::workload(&two, WorkloadFile::default(), &args).map(|(workload, _)| workload.container.len())
    };
    assert_eq!((by("other").unwrap(), by("Pod/web").unwrap()), (1, 1));
    assert!(matches!(by("third"), Err(PodError::Unknown { .. })));
    let list = format!("kind: List\nitems:\n- {}", pod("", "").trim_end().replace('\n', "\n  "));
    assert!(read(&list, &[]).is_ok());
    for (kind, way) in [("Job", ""), ("CronJob", "")] {
        let template = pod("", "")
            .split_once("spec:\n")
            .unwrap()
            .1
            .replace('\n', "\n          ");
        let template = format!("template:\n        spec:\n          {template}");
        let yaml = match kind {
            "Job" => format!("kind: Job\nmetadata: {{ name: j }}\nspec:\n      {template}"),
            _ => format!("kind: CronJob\nmetadata: {{ name: j }}\nspec:\n  jobTemplate:\n    spec:\n      {template}"),
        };
        assert!(read(&yaml, &[]).is_ok(), "{kind}{way}: {yaml}");
    }
}

#[test]
fn a_base_adds_what_yaml_has_no_word_for_and_contradicts_nothing() {
    let base = |text: &str| {
        let base: WorkloadFile = toml::from_str(text).unwrap();
        workload(&pod("", ""), base, &args(&[])).map(|(workload, _)| workload)
    };
    let both = base("[[container]]\nname = \"server\"\nstdio = \"redact\"\n[[container.mount]]\ndestination = \"/m\"\nmodel = \"m\"").unwrap();
    assert_eq!(both.container[0].mount.len(), 1);
    assert_eq!(both.container[0].stdio, Choice::Word("redact".to_owned()));
    assert_eq!(both.container[0].image, "registry.example/a:1");
    assert!(matches!(
        base("[[container]]\nname = \"stray\"").map(|_| ()),
        Err(PodError::Stray { .. })
    ));
    let said = base("[[container]]\nname = \"server\"\nargs = [\"/x\"]")
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(said, PodError::Said { key: "args", .. }), "{said}");
}

#[test]
fn short_names_of_images_are_made_whole() {
    for (short, whole) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("a/b:1", "docker.io/a/b:1"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("r.example/a@sha256:00", "r.example/a@sha256:00"),
    ] {
        assert_eq!(normal_image(short), whole);
    }
}
