//! The launcher in fresh namespaces of this machine: what a container sees, what it may, and how it ends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod common;

use cella_agent::{
    container::{CgroupRoot, ContainerError, ProcessId},
    launch::{HostSeccomp, LaunchError},
    stage::StageName,
};
use cella_policy::check::Denial;
use common::{Machine, id, is_root, policy, script};
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_its_own_world() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let seen = "echo pid $$; hostname; id -u; id -g; pwd; env | sort; cat /etc/hostname; ls /proc | grep -c '^[0-9]'; \
                ls /dev | sort | xargs; ls -A /run | wc -l; stat -c %a /; umask";
    let (status, output, errors) = machine.run(&script(seen)).await;
    assert_eq!((status, errors.as_str()), (0, ""), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    let expected = [
        "pid 1",
        "pod-1",
        "65534",
        "65534",
        "/",
        "HOME=/tmp",
        "PATH=/usr/bin:/bin",
        "PWD=/",
        "pod-1",
    ];
    assert_eq!(lines[..expected.len()], expected);
    assert!(
        lines.contains(&"fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"),
        "{output}"
    );
    assert!(output.ends_with("\n0\n755\n0022\n"), "{output}");
    assert_eq!(machine.stages.snapshot()[0].name, StageName::Start);
}

#[tokio::test(flavor = "multi_thread")]
async fn t26_nothing_of_the_agent_is_open_in_a_container() {
    if !is_root() {
        return;
    }
    // The shell itself opens none beyond the directory that ls reads.
    let (status, output, _) = Machine::new().run(&policy(&["/bin/ls", "/proc/self/fd"], &[])).await;
    assert_eq!((status, output.as_str()), (0, "0\n1\n2\n3\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_has_no_privilege_that_the_policy_does_not_name() {
    if !is_root() {
        return;
    }
    let text = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; ulimit -c; ulimit -n; ulimit -l";
    let none = "0000000000000000";
    let (_, output, _) = Machine::new().run(&script(text)).await;
    let values: Vec<&str> = output
        .lines()
        .map(|line| line.rsplit('\t').next().unwrap().trim())
        .collect();
    assert_eq!(
        values,
        ["", none, none, none, none, none, "1", "2", "0", "1024", "1024"],
        "{output}"
    );

    let bind = "0000000000000400";
    let changes = [("capabilities = []", "capabilities = [\"NET_BIND_SERVICE\"]")];
    let named = policy(&["/bin/sh", "-c", "grep ^Cap /proc/self/status"], &changes);
    let (_, output, _) = Machine::new().run(&named).await;
    assert_eq!(output.matches(bind).count(), 5, "{output}");

    let root = [("uid = 65534, gid = 65534", "uid = 0, gid = 0"), changes[0]];
    let named = policy(&["/bin/sh", "-c", "id -u; grep ^Cap /proc/self/status"], &root);
    let (_, output, _) = Machine::new().run(&named).await;
    assert!(
        output.starts_with("0\n") && output.matches(bind).count() == 5,
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_what_leads_out_of_a_container_is_denied() {
    if !is_root() {
        return;
    }
    // As root with every capability: seccomp alone stands between.
    let all = [
        ("uid = 65534, gid = 65534", "uid = 0, gid = 0"),
        (
            "capabilities = []",
            "capabilities = [\"SYS_ADMIN\", \"MKNOD\", \"SYS_PTRACE\", \"NET_ADMIN\"]",
        ),
    ];
    let tries = "mount -t tmpfs x /mnt && echo mounted; unshare -m true && echo unshared; \
                 mknod /tmp/sda b 8 0 && echo node; mknod /tmp/fifo p && echo fifo; \
                 python3 -c 'import socket; socket.socket(40, 1)' && echo vsock; \
                 python3 -c 'import socket; socket.socket(2, 1)' && echo inet; true";
    let (status, output, errors) = Machine::new().run(&policy(&["/bin/sh", "-c", tries], &all)).await;
    assert_eq!((status, output.as_str()), (0, "fifo\ninet\n"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_read_only_and_models_are_too() {
    if !is_root() {
        return;
    }
    let tries = "touch /x; touch /models/demo/x; touch /tmp/ok && echo ok; cat /models/demo/weights.gguf; echo; \
                 grep ' /models/demo ' /proc/self/mounts | cut -d' ' -f4; grep ' / ' /proc/self/mounts | cut -d' ' -f3; \
                 cat /proc/kmsg | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/vm/overcommit_memory";
    let root = [("uid = 65534, gid = 65534", "uid = 0, gid = 0")];
    let (_, output, errors) = Machine::new().run(&policy(&["/bin/sh", "-c", tries], &root)).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["ok", "weights"], "{output}{errors}");
    assert!(lines[2].starts_with("ro,nosuid,nodev,noexec"), "{output}");
    assert_eq!(lines[3..], ["overlay", "0", "0"]);
    assert_eq!(errors.matches("Read-only file system").count(), 3, "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writable_root_takes_changes_that_nobody_else_sees() {
    if !is_root() {
        return;
    }
    let changes = [
        ("uid = 65534, gid = 65534", "uid = 0, gid = 0"),
        ("readonly-rootfs = true", "readonly-rootfs = false"),
    ];
    let tries = "echo changed > /cella-test-file && cat /cella-test-file; dd if=/dev/zero of=/big bs=1M count=64";
    let (status, output, errors) = Machine::new().run(&policy(&["/bin/sh", "-c", tries], &changes)).await;
    assert_eq!((status, output.as_str()), (1, "changed\n"));
    assert!(errors.contains("No space left on device"), "{errors}");
    assert!(!std::path::Path::new("/cella-test-file").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_come_back() {
    if !is_root() {
        return;
    }
    assert_eq!(Machine::new().run(&script("exit 3")).await.0, 3);
    assert_eq!(
        Machine::new()
            .run(&policy(&["/bin/sh", "-c", "kill -SEGV $$; sleep 1; exit 4"], &[]))
            .await
            .0,
        4
    );

    let machine = Machine::new();
    machine
        .create(&script("trap 'exit 5' TERM; while :; do sleep 0.1; done"))
        .unwrap();
    let pid = machine.start().await.unwrap();
    assert_eq!(machine.containers.processes(&id()).unwrap(), [pid]);
    assert!(matches!(
        machine.containers.signal(&id().first_process(), 1, false),
        Err(ContainerError::Denied(Denial::Signal { .. }))
    ));
    assert!(matches!(
        machine.containers.delete(&id().first_process()).await,
        Err(ContainerError::State { state: "running", .. })
    ));
    assert!(matches!(
        machine.start().await,
        Err(ContainerError::State { state: "running", .. })
    ));
    machine.containers.signal(&id().first_process(), 9, true).unwrap();
    assert_eq!(machine.wait().await.exit.status, 137);
    assert_eq!(machine.wait().await.exit.status, 137);
    assert!(matches!(
        machine.containers.signal(&id().first_process(), 9, false),
        Err(ContainerError::State { state: "stopped", .. })
    ));
    assert_eq!(
        machine
            .containers
            .delete(&id().first_process())
            .await
            .unwrap()
            .exit
            .status,
        137
    );
    assert!(matches!(
        machine.containers.wait(&id().first_process()).await,
        Err(ContainerError::Unknown { .. })
    ));
    assert_eq!(
        std::fs::read_dir(machine.dir.path().join("containers"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_handles_sigterm_gets_it() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let waits = script("trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done");
    let numbers = machine.create(&waits).unwrap();
    let mut out = machine.claim(numbers.stdout).await;
    machine.start().await.unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut out, &mut [0; 6])
        .await
        .unwrap();
    machine.containers.signal(&id().first_process(), 15, false).unwrap();
    assert_eq!(machine.wait().await.exit.status, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn input_reaches_the_program() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let numbers = machine.create(&policy(&["/bin/cat"], &[])).unwrap();
    let mut input = machine.claim(numbers.stdin).await;
    let mut output = machine.claim(numbers.stdout).await;
    machine.start().await.unwrap();
    input.write_all(b"question").await.unwrap();
    input.shutdown().await.unwrap();
    let mut read = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut output, &mut read)
        .await
        .unwrap();
    assert_eq!((read.as_str(), machine.wait().await.exit.status), ("question", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_denied_output_does_not_leave() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let quiet = policy(
        &["/bin/sh", "-c", "echo canary; echo canary >&2"],
        &[("stdio = \"allow\"", "stdio = \"deny\"")],
    );
    let numbers = machine.create(&quiet).unwrap();
    assert_eq!((numbers.stdin, numbers.stdout, numbers.stderr), (0, 0, 0));
    machine.start().await.unwrap();
    assert_eq!(machine.wait().await.exit.status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn launch_failures_say_what_failed() {
    if !is_root() {
        return;
    }
    for (args, changes, expected) in [
        (
            &["/no/such"][..],
            &[][..],
            "exec: \"/no/such\": no such file or directory",
        ),
        (
            &["no-such"],
            &[],
            "exec: \"no-such\": executable file not found in $PATH",
        ),
        (&["/etc/passwd"], &[], "exec: \"/etc/passwd\": permission denied"),
        (
            &["/bin/true"],
            &[("cwd = \"/\"", "cwd = \"/etc/passwd\"")],
            "cwd /etc/passwd: Not a directory",
        ),
        (
            &["/bin/true"],
            &[("destination = \"/tmp\"", "destination = \"/bin/sh\"")],
            "mount /bin/sh: Not a directory",
        ),
    ] {
        let machine = Machine::new();
        machine.create(&policy(args, changes)).unwrap();
        let error = machine.start().await.unwrap_err();
        let ContainerError::Launch(LaunchError::Step(line)) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(line, expected);
        assert_eq!(machine.wait().await.exit.status, 255);
        machine.containers.delete(&id().first_process()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_container_can_be_killed_and_deleted() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    machine.create(&script("true")).unwrap();
    let again = machine.create(&script("true")).unwrap_err();
    assert!(matches!(again, ContainerError::Exists { .. }));
    machine.containers.signal(&id().first_process(), 9, false).unwrap();
    assert_eq!(machine.wait().await.exit.status, 137);
    machine.containers.delete(&id().first_process()).await.unwrap();

    machine.create(&script("true")).unwrap();
    assert_eq!(
        machine
            .containers
            .delete(&id().first_process())
            .await
            .unwrap()
            .exit
            .status,
        137
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_calls_that_are_left_to_the_hosts_filter_do_not_reach_it() {
    if !is_root() {
        return;
    }
    // On the agent's list is no unshare; vsock is denied without it, too.
    let calls = "import ctypes, socket\n\
                 print('unshare', ctypes.CDLL(None).unshare(0))\n\
                 try: socket.socket(40, 1)\n\
                 except OSError as error: print('vsock', error.errno)\n\
                 print('io_uring', ctypes.CDLL(None, use_errno=True).syscall(425, 0, 0), ctypes.get_errno())";
    let run = async |seccomp: &str| {
        let stdio = format!("stdio = \"allow\"\nseccomp = \"{seccomp}\"");
        let policy = policy(&["/usr/bin/python3", "-c", calls], &[("stdio = \"allow\"", &stdio)]);
        let mut machine = Machine::new();
        machine.host_seccomp = Some(HostSeccomp::parse(br#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap());
        machine.run(&policy).await
    };
    let (status, output, errors) = run("any").await;
    assert_eq!(
        (status, output.as_str()),
        (0, "unshare 0\nvsock 1\nio_uring -1 1\n"),
        "{errors}"
    );
    let (_, output, errors) = run("agent").await;
    assert!(output.starts_with("unshare -1\nvsock 1\n"), "{output}{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_deletes_one_succeeds() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let delete = async |process: &ProcessId| {
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let (containers, process) = (machine.containers.clone(), process.clone());
                tokio::spawn(async move { containers.delete(&process).await })
            })
            .collect();
        let mut deleted = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => deleted += 1,
                Err(ContainerError::Unknown { .. } | ContainerError::State { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        deleted
    };
    machine.create(&script("sleep 60")).unwrap();
    machine.start().await.unwrap();
    for _ in 0..50 {
        machine.add_exec("e1", common::process(&["/bin/true"])).unwrap();
        assert_eq!(delete(&common::exec_id("e1")).await, 1);
    }
    machine.containers.signal(&id().first_process(), 9, true).unwrap();
    machine.wait().await;
    assert_eq!(delete(&id().first_process()).await, 1);
    for _ in 0..50 {
        machine.create(&script("true")).unwrap();
        assert_eq!(delete(&id().first_process()).await, 1);
    }
}

#[tokio::test]
async fn a_container_that_cannot_be_made_leaves_nothing() {
    let groups = tempfile::tempdir().unwrap();
    std::fs::write(groups.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
    let root = CgroupRoot::make(groups.path()).unwrap();
    // Its limits cannot be written.
    std::fs::write(groups.path().join("cella/c1"), "").unwrap();
    let machine = Machine::with(Some(root));
    let error = machine.create(&script("true")).unwrap_err();
    assert!(matches!(error, ContainerError::Cgroup(_)), "{error}");
    assert!(machine.containers.snapshots().is_empty());
    let bundles = std::fs::read_dir(machine.dir.path().join("containers")).unwrap();
    assert_eq!(bundles.count(), 0);
}
