//! What a pod's containers share: shared memory, messages, host name, volumes, processes; and users out of their files.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{fs, sync::Arc};

use cella_agent::{
    container::{Creation, Limits, ProcessId, WantedPipes},
    network::NetworkPlan,
    pod::Sysctl,
    volume::{Content, FileContent},
};
use cella_policy::{
    Policy, Sha256Digest, VolumeKind,
    check::{Admission, AdmittedUser, AdmittedVolume},
};
use common::{LIMIT, Machine, admission, is_root};
use tokio::{io::AsyncReadExt, time::timeout};

/// A policy that lets several containers run a script at once.
fn script(script: &str) -> Policy {
    common::policy(&["/bin/sh", "-c", script], &[MANY])
}

const MANY: (&str, &str) = ("stdio = \"allow\"", "stdio = \"allow\"\ninstances = \"any\"");

/// A container that was started.
struct Started {
    id: ProcessId,
    output: tokio::net::UnixStream,
    errors: tokio::net::UnixStream,
}

async fn start(machine: &Machine, id: &str, policy: &Policy, change: impl FnOnce(&mut Admission<'_>)) -> Started {
    let mut admission = admission(policy);
    admission.hostname = String::new();
    change(&mut admission);
    let id: cella_agent::container::ContainerId = id.parse().unwrap();
    let creation = Creation {
        id: id.clone(),
        admission,
        host_seccomp: None,
        pipes: WantedPipes {
            stdin: false,
            stdout: true,
            stderr: true,
        },
        limits: Limits::default(),
    };
    let numbers = machine.containers.create(creation).unwrap();
    let (output, errors) = (machine.claim(numbers.stdout).await, machine.claim(numbers.stderr).await);
    let started = machine
        .containers
        .start(&id, machine.supply(), Arc::new(NetworkPlan::default()));
    timeout(LIMIT, started).await.unwrap().unwrap();
    Started {
        id: id.first_process(),
        output,
        errors,
    }
}

/// Waits for a line of its output.
async fn line(started: &mut Started) -> String {
    let mut line = Vec::new();
    loop {
        match timeout(LIMIT, started.output.read_u8()).await.unwrap().unwrap() {
            b'\n' => return String::from_utf8(line).unwrap(),
            byte => line.push(byte),
        }
    }
}

/// Waits for its end: status, the rest of the output, errors.
async fn end(machine: &Machine, mut started: Started) -> (u32, String, String) {
    let (mut output, mut errors) = (String::new(), String::new());
    timeout(LIMIT, started.output.read_to_string(&mut output))
        .await
        .unwrap()
        .unwrap();
    timeout(LIMIT, started.errors.read_to_string(&mut errors))
        .await
        .unwrap()
        .unwrap();
    let ended = timeout(LIMIT, machine.containers.wait(&started.id))
        .await
        .unwrap()
        .unwrap();
    (ended.exit.status, output, errors)
}

async fn kill(machine: &Machine, started: Started) {
    machine.containers.signal(&started.id, 9, false).unwrap();
    end(machine, started).await;
}

fn mount(volume: &str, kind: VolumeKind, destination: &str) -> AdmittedVolume {
    AdmittedVolume {
        destination: destination.into(),
        volume: volume.into(),
        kind,
        read_only: false,
        files: [].into(),
    }
}

fn file(text: &str) -> FileContent {
    FileContent {
        bytes: text.into(),
        ..FileContent::default()
    }
}

fn tree(files: &[(&str, &str)]) -> Content {
    Content::Tree(files.iter().map(|(path, text)| ((*path).into(), file(text))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_name_messages_and_memory() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let sysctls = [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into();
    let pod = machine.containers.pod();
    pod.found("shared-pod", &Sysctl::parse(&sysctls).unwrap()).unwrap();
    assert!(pod.found("again", &[]).is_err());

    let first = script(
        "hostname; cat /etc/hostname; cat /proc/sys/kernel/shm_rmid_forced; echo shared > /dev/shm/x; \
                        python3 -c 'import ctypes; ctypes.CDLL(None).msgget(4711, 0o1666)'; echo ready; sleep 60",
    );
    let mut first = start(&machine, "first", &first, |_| {}).await;
    for expected in ["shared-pod", "shared-pod", "1", "ready"] {
        assert_eq!(line(&mut first).await, expected);
    }
    let second = script("cat /dev/shm/x; hostname; grep -c 4711 /proc/sysvipc/msg; ls /proc | grep -c '^[0-9]'");
    let second = start(&machine, "second", &second, |_| {}).await;
    let (status, output, errors) = end(&machine, second).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        (status, &lines[..3]),
        (0, &["shared", "shared-pod", "1"][..]),
        "{output}{errors}"
    );
    // Processes are not shared unless that is asked for: sh, ls, grep.
    assert!(lines[3].parse::<u32>().unwrap() <= 3, "{output}");
    kill(&machine, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_files_that_the_policy_names_stay_as_they_are() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let volumes = machine.containers.pod().volumes().clone();
    let (name, kind) = ("settings".parse().unwrap(), VolumeKind::ConfigMap);
    volumes.put(&name, kind, tree(&[("key", "other")])).unwrap();
    let named = [(
        "key".to_owned(),
        Sha256Digest::from(*cella_oci::Digest::of(b"named").as_bytes()),
    )];
    let prints = script("cat /config/key; echo; sleep 60");
    let mounted = |admission: &mut Admission<'_>| {
        admission.volumes = vec![AdmittedVolume {
            files: named.clone().into(),
            ..mount("settings", kind, "/config")
        }];
    };
    let mut admission = admission(&prints);
    mounted(&mut admission);
    let creation = Creation {
        id: "denied".parse().unwrap(),
        admission,
        host_seccomp: None,
        pipes: WantedPipes::default(),
        limits: Limits::default(),
    };
    let denied = machine.containers.create(creation).unwrap_err().to_string();
    assert!(
        denied.starts_with("policy denies volume \"settings\": its file \"key\""),
        "{denied}"
    );
    volumes.put(&name, kind, tree(&[("key", "named")])).unwrap();
    let mut started = start(&machine, "first", &prints, mounted).await;
    assert_eq!(line(&mut started).await, "named");
    let replaced = volumes
        .put(&name, kind, tree(&[("key", "other")]))
        .unwrap_err()
        .to_string();
    assert!(replaced.starts_with("policy denies volume"), "{replaced}");
    volumes.put(&name, kind, tree(&[("key", "named")])).unwrap();
    kill(&machine, started).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_mounted_shared_and_replaced() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let volumes = machine.containers.pod().volumes().clone();
    let put = |name: &str, kind, content| volumes.put(&name.parse().unwrap(), kind, content).unwrap();
    put(
        "scratch",
        VolumeKind::EmptyDir,
        Content::Memory {
            size_limit: Some(1 << 20),
        },
    );
    put(
        "settings",
        VolumeKind::ConfigMap,
        tree(&[("key", "old"), ("deep/er", "x")]),
    );
    put("one", VolumeKind::Secret, Content::File(file("secret")));
    put("hosts", VolumeKind::Hosts, Content::File(file("10.0.0.7\tpod-7\n")));

    let mounts = [
        mount("scratch", VolumeKind::EmptyDir, "/mnt/scratch"),
        mount("settings", VolumeKind::ConfigMap, "/mnt/settings"),
        mount("one", VolumeKind::Secret, "/mnt/one/file"),
        mount("hosts", VolumeKind::Hosts, "/etc/hosts"),
    ];
    let text = "cat /mnt/settings/key /mnt/settings/deep/er /mnt/one/file; echo; cat /etc/hosts; \
                touch /mnt/settings/new /mnt/one/file; stat -c %a /mnt/scratch; \
                mkfifo /mnt/scratch/go; echo written > /mnt/scratch/file; echo ready; read line < /mnt/scratch/go; cat /mnt/settings/key; echo";
    let policy = script(text);
    let mut first = start(&machine, "first", &policy, |admission| {
        admission.volumes = mounts.to_vec()
    })
    .await;
    for expected in ["oldxsecret", "10.0.0.7\tpod-7", "777", "ready"] {
        assert_eq!(line(&mut first).await, expected);
    }
    put("settings", VolumeKind::ConfigMap, tree(&[("key", "new")]));
    let second = script("cat /mnt/scratch/file; echo go > /mnt/scratch/go");
    let second = start(&machine, "second", &second, |admission| {
        admission.volumes = mounts.to_vec()
    })
    .await;
    assert_eq!(end(&machine, second).await.1, "written\n");
    let (status, output, errors) = end(&machine, first).await;
    assert_eq!((status, output.as_str()), (0, "new\n"), "{errors}");
    assert_eq!(errors.matches("Read-only file system").count(), 1, "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_are_told_and_belong_to_one_container() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let volumes = machine.containers.pod().volumes();
    let name = "log".parse().unwrap();
    volumes
        .put(&name, VolumeKind::TerminationLog, Content::File(file("")))
        .unwrap();
    let mounts = [mount("log", VolumeKind::TerminationLog, "/dev/termination-log")];
    for (id, words) in [("first", "bye"), ("second", "farewell")] {
        let policy = script(&format!(
            "cat /dev/termination-log; echo -n {words} > /dev/termination-log; exit 3"
        ));
        let started = start(&machine, id, &policy, |admission| admission.volumes = mounts.to_vec()).await;
        let process = started.id.clone();
        assert_eq!(end(&machine, started).await, (3, String::new(), String::new()));
        assert_eq!(machine.containers.last_words(&process.container), words.as_bytes());
        machine.containers.delete(&process).await.unwrap();
        assert_eq!(machine.containers.last_words(&process.container), b"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_may_share_their_processes() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let first = script("echo ready; exec sleep 61");
    let mut first = start(&machine, "first", &first, |admission| admission.shared_pid = true).await;
    line(&mut first).await;
    // As root, with whatever root may do here: the namespace's own process 1 shows nothing of the agent.
    let second = "tr '\\0' '\\n' < /proc/1/cmdline; pgrep -x sleep | wc -l; ls /proc/1/root/ /proc/1/cwd/ | wc -l; ls /proc/1/fd | wc -l; \
                  (sleep 0.01 &); sleep 0.1; echo $$";
    let second = common::policy(
        &["/bin/sh", "-c", second],
        &[("uid = 65534, gid = 65534", "uid = 0, gid = 0"), MANY],
    );
    let second = start(&machine, "second", &second, |admission| admission.shared_pid = true).await;
    let (status, output, errors) = end(&machine, second).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        (status, lines[0], lines[1], lines[2]),
        (0, "cella-init", "1", "0"),
        "{output}{errors}"
    );
    assert_eq!(lines[3], "0");
    assert_ne!(lines[4], "1");
    assert_eq!(errors.matches("Permission denied").count(), 2, "{errors}");
    kill(&machine, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_looked_up_in_the_containers_files() {
    if !is_root() {
        return;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let games = passwd.lines().find(|line| line.starts_with("games:")).unwrap();
    let fields: Vec<&str> = games.split(':').collect();
    let user = |name: &str| AdmittedUser::Host {
        uid: 0,
        gid: 0,
        additional_gids: vec![0, 4711],
        name: name.into(),
    };
    let machine = Machine::new();
    let policy = script("id -nu; id -u; id -G; echo $HOME");
    let started = start(&machine, "named", &policy, |admission| {
        admission.process.user = user("games");
        admission.process.env.retain(|variable| !variable.starts_with("HOME="));
    })
    .await;
    let (_, output, errors) = end(&machine, started).await;
    let expected = format!("games\n{}\n{} 4711\n{}\n", fields[2], fields[3], fields[5]);
    assert_eq!(output, expected, "{errors}");

    let policy = script("true");
    let mut admission = admission(&policy);
    admission.process.user = user("no-such-user");
    let creation = Creation {
        id: "unknown".parse().unwrap(),
        admission,
        host_seccomp: None,
        pipes: WantedPipes::default(),
        limits: Limits::default(),
    };
    machine.containers.create(creation).unwrap();
    let id = "unknown".parse().unwrap();
    let started = machine
        .containers
        .start(&id, machine.supply(), Arc::new(NetworkPlan::default()));
    let error = timeout(LIMIT, started).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("no-such-user"), "{error}");
}
