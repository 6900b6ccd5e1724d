//! The filter on processes: one in the cgroup, one that is not, and a peer in another network namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::*;

/// A peer beyond a wire, and a cgroup.
struct Wire {
    cgroup: PathBuf,
    peer: Child,
    servers: Vec<Child>,
}

impl Wire {
    /// `None` where that cannot be had. This thread's network is 10.9.0.1 on v0; the peer's is 10.9.0.2.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        let cgroup = Path::new(mount.split(' ').nth(1)?).join(format!("cella-filter-test-{}", std::process::id()));
        if unshare(CloneFlags::CLONE_NEWNET).is_err() || fs::create_dir_all(&cgroup).is_err() {
            eprintln!("skipped: needs root and cgroup v2");
            return None;
        }
        let peer = Command::new("unshare").args(["-n", "sleep", "600"]).spawn().unwrap();
        let wire = Self {
            cgroup,
            peer,
            servers: Vec::new(),
        };
        wire.until(|| {
            fs::read_link(format!("/proc/{}/ns/net", wire.peer.id())).ok()
                != fs::read_link("/proc/thread-self/ns/net").ok()
        });
        let pid = wire.peer.id().to_string();
        ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", &pid]);
        ip(&["addr", "add", "10.9.0.1/24", "dev", "v0"]);
        ip(&["link", "set", "v0", "up"]);
        ip(&["link", "set", "lo", "up"]);
        for args in [
            &["addr", "add", "10.9.0.2/24", "dev", "v1"][..],
            &["link", "set", "v1", "up"],
        ] {
            assert!(wire.at_peer("ip").args(args).status().unwrap().success());
        }
        Some(wire)
    }

    fn at_peer(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.peer.id().to_string(), "-n", program]);
        command
    }

    /// A program of Python in the cgroup.
    fn inside(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        let enter = format!(
            "echo $$ > {}/cgroup.procs && exec python3 -c \"$0\"",
            self.cgroup.display()
        );
        command.args(["-c", &enter, script]);
        command
    }

    /// Waits until a program says that it listens.
    fn serve(&mut self, mut command: Command) {
        let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(server.stdout.as_mut().unwrap(), &mut byte).unwrap();
        self.servers.push(server);
    }

    #[allow(clippy::disallowed_methods, reason = "polls for a state with a deadline")]
    fn until(&self, done: impl Fn() -> bool) {
        for _ in 0..500 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("waited in vain");
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for child in self.servers.iter_mut().chain([&mut self.peer]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.until(|| fs::remove_dir(&self.cgroup).is_ok());
    }
}

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().unwrap().success(), "{args:?}");
}

fn said(mut command: Command) -> String {
    let out = command.stderr(Stdio::inherit()).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// Answers everybody on these ports.
fn server(tcp: &[u16], udp: &[u16]) -> String {
    format!(
        "import socket, threading, sys\n\
         def answer(s):\n\
         \x20 while True:\n\
         \x20   c, _ = s.accept(); c.sendall(b'ok'); c.close()\n\
         def echo(s):\n\
         \x20 while True:\n\
         \x20   d, a = s.recvfrom(99); s.sendto(b'ok', a)\n\
         ts = []\n\
         for p in {tcp:?}:\n\
         \x20 s = socket.create_server(('', p)); ts.append(threading.Thread(target=answer, args=(s,)))\n\
         for p in {udp:?}:\n\
         \x20 s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', p)); ts.append(threading.Thread(target=echo, args=(s,)))\n\
         [t.start() for t in ts]; sys.stdout.write('x'); sys.stdout.flush()"
    )
}

/// `ok`, or the error's name.
fn client(kind: &str, address: &str, port: u16) -> String {
    format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_{kind}); s.settimeout(1)\n\
         try:\n\
         \x20 if '{kind}' == 'STREAM': s.connect(('{address}', {port}))\n\
         \x20 else: s.sendto(b'?', ('{address}', {port}))\n\
         \x20 print(s.recv(2).decode())\n\
         except Exception as e: print(type(e).__name__)"
    )
}

#[test]
fn t21_processes_of_the_pod_reach_whom_the_policy_names_and_clients_what_it_opens() {
    let Some(mut wire) = Wire::new() else { return };
    let network = policy(
        r#"
        ingress = ["8080/tcp"]
        egress = [
            { to = "10.9.0.2", protocol = "tcp", ports = [443] },
            { to = "10.9.0.2", protocol = "udp", ports = [53] },
        ]"#,
    );
    let own = ["10.9.0.1".parse().unwrap()];
    let filter = Filter::attach(&wire.cgroup, &network, &own).unwrap();
    let mut peer = wire.at_peer("python3");
    peer.args(["-c", &server(&[443, 9999], &[53, 54])]);
    wire.serve(peer);
    let workload = wire.inside(&server(&[8080, 8081], &[]));
    wire.serve(workload);
    let from_pod = |kind: &str, address: &str, port| said(wire.inside(&client(kind, address, port)));
    let from_peer = |port| {
        let mut command = wire.at_peer("python3");
        command.args(["-c", &client("STREAM", "10.9.0.1", port)]);
        said(command)
    };
    for (kind, address, port, expected) in [
        ("STREAM", "10.9.0.2", 443, "ok"),
        ("STREAM", "10.9.0.2", 9999, "PermissionError"),
        ("DGRAM", "10.9.0.2", 53, "ok"),
        ("DGRAM", "10.9.0.2", 54, "PermissionError"),
        // Within the pod, by the loopback and by its own address.
        ("STREAM", "127.0.0.1", 8081, "ok"),
        ("STREAM", "10.9.0.1", 8081, "ok"),
    ] {
        assert_eq!(from_pod(kind, address, port), expected, "{kind} {address} {port}");
    }
    assert_eq!(from_peer(8080), "TimeoutError", "shut");
    filter.set(true).unwrap();
    assert_eq!(
        (from_peer(8080).as_str(), from_peer(8081).as_str()),
        ("ok", "TimeoutError")
    );
    filter.set(false).unwrap();
    assert_eq!(from_peer(8080), "TimeoutError", "shut again");
    let refused = filter.refused();
    assert!(refused.incoming > 0 && refused.outgoing > 0, "{refused:?}");
    // Whoever is not in the cgroup, as the agent, is not asked.
    let mut agent = Command::new("python3");
    agent.args(["-c", &client("STREAM", "10.9.0.2", 9999)]);
    assert_eq!(said(agent), "ok");
}
