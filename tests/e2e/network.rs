//! The network of a pod: real CNI plugins, a real guest on their bridge, in namespaces of the tests' own.
//!
//! ```text
//!   node (namespace) ── cellabr0 10.88.77.1, fd00:88:77::1, MTU 1400 ─┬─ pod (namespace): eth0 ⇄ guest
//!     10.0.2.2: broker and registry of the stack                     └─ other (namespace): a pod without a VM
//! ```
use std::{
    fs,
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cella_shim::network::NetNs;
use cella_tests::{
    Run, Stack,
    process::{run, succeed, wait_until},
};

use crate::{
    Case,
    faults::{kill_one, vm},
    fixture::Fixture,
};

pub(crate) const CASES: &[(&str, Case)] = &[
    (
        "a_pod_is_reached_and_reaches_others_by_tcp_and_udp",
        a_pod_is_reached_and_reaches_others,
    ),
    (
        "a_killed_shim_or_qemu_leaves_the_namespace_as_it_was",
        a_killed_shim_or_qemu_leaves_the_namespace_as_it_was,
    ),
    ("what_cannot_be_is_refused_by_name", what_cannot_be_is_refused_by_name),
];

const LIMIT: Duration = Duration::from_secs(60);
const BOOT: Duration = Duration::from_secs(150);
const MIB: usize = 1 << 20;
/// Whom the guests of these tests speak to: name and web servers of node and other pod.
const NETWORK: &str = r#"
[network]
ingress = ["8080/tcp"]
egress = [
    { to = "10.88.77.0/24", protocol = "udp", ports = [53] },
    { to = "10.88.77.0/24", protocol = "tcp", ports = [9000] },
    { to = "fd00:88:77::/64", protocol = "udp", ports = [53] },
    { to = "fd00:88:77::/64", protocol = "tcp", ports = [9000] },
]
"#;
const V4: &str = "10.88.77.1";
const V6: &str = "fd00:88:77::1";

fn a_pod_is_reached_and_reaches_others(f: &Fixture) -> Result<()> {
    let lab = Lab::new(&f.stack)?;
    let (guest, other) = (lab.join("pod", Some((18080, 8080)))?, lab.join("other", None)?);
    for (which, address) in [("node", V4), ("node", V6), ("other", &other.v4), ("other", &other.v6)] {
        lab.name_server(which, address)?;
    }
    let _http = [lab.web_server("node")?, lab.web_server("other")?];
    let servers = [V4, V6, &other.v4, &other.v6];
    let mut line = String::from("ip -o addr show dev eth0; ip route; ip -6 route; ip -o link show dev eth0;");
    for server in servers {
        line += &format!(
            " nslookup probe.test {server} | grep -q 192.0.2.77 && echo udp {server} ok; wget -q -O - http://{}:9000/f | sha256sum;",
            bracketed(server)
        );
    }
    line += " echo serving; exec httpd -f -p [::]:8080 -h /bin";
    let (run, mut ctr, printed) = lab.start(f, &line, "serving")?;

    for (what, count) in [
        (format!("inet {}/24", guest.v4), 1),
        (format!("inet6 {}/64", guest.v6), 1),
        (format!("default via {V4} dev eth0"), 1),
        (format!("default via {V6} dev eth0"), 1),
        ("mtu 1400".into(), 1),
        (lab.sum.clone(), servers.len()),
    ] {
        ensure!(
            printed.matches(&what).count() >= count,
            "{what:?} is not there {count} times: {printed}"
        );
    }
    for server in servers {
        ensure!(printed.contains(&format!("udp {server} ok")), "{server}: {printed}");
    }
    // From the node, from another pod, and through the hostPort.
    let busybox = sum_of(Path::new("/bin/busybox"))?;
    for (from, address) in [
        ("node", format!("{}:8080", guest.v4)),
        ("node", format!("[{}]:8080", guest.v6)),
        ("other", format!("{}:8080", guest.v4)),
        ("other", format!("[{}]:8080", guest.v6)),
        ("other", format!("{V4}:18080")),
    ] {
        let (url, file) = (format!("http://{address}/busybox"), lab.dir.join("got"));
        let out = file.to_string_lossy();
        lab.within(from, &["curl", "-sSg", "--max-time", "40", "-o", &out, &url])?;
        ensure!(sum_of(&file)? == busybox, "{from} got other bytes from {address}");
    }

    run.remove(&f.stack)?;
    ctr.wait()?;
    lab.becomes_untouched("pod")
}

fn a_killed_shim_or_qemu_leaves_the_namespace_as_it_was(f: &Fixture) -> Result<()> {
    let lab = Lab::new(&f.stack)?;
    lab.join("pod", None)?;
    let line = "echo serving; exec httpd -f -p 8080";
    let (run, mut ctr, _) = lab.start(f, line, "serving")?;
    ensure!(lab.within("pod", &["tc", "qdisc"])?.contains("ingress"));
    let shim = shim_of(f.stack.var("CONTAINERD"))?;
    succeed(Command::new("kill").args(["-9", &shim.to_string()]), LIMIT)?;
    ctr.wait()?;
    run.remove(&f.stack)?;
    lab.becomes_untouched("pod").context("after the shim was killed")?;
    // And the namespace can be used again; when QEMU is killed, its shim leaves it likewise.
    let (run, mut ctr, _) = lab.start(f, line, "serving")?;
    kill_one(&["qemu-system-x86_64", &vm(f)?.to_string_lossy()])?;
    ctr.wait()?;
    run.remove(&f.stack)?;
    lab.becomes_untouched("pod").context("after QEMU was killed")
}

fn what_cannot_be_is_refused_by_name(f: &Fixture) -> Result<()> {
    let lab = Lab::new(&f.stack)?;
    let line = "true";
    let policy = f.allowed(&f.shell(line))?;
    let pod = lab.path("pod").to_string_lossy().into_owned();
    let sandbox = [
        "--annotation",
        "io.kubernetes.cri.container-type=sandbox",
        "--annotation",
        "io.kubernetes.cri.sandbox-id=s",
    ];
    let ports = ["--annotation", "io.cella.ports=127.0.0.1:18081:80"];
    for (flags, words) in [
        (vec![format!("network:{pod}")], "has no Ethernet interface that is up"),
        (
            vec!["network:/proc/self/ns/net".into()],
            "is the host's own network namespace",
        ),
        (vec!["network:/etc/hostname".into()], "is not a network namespace"),
    ] {
        let flags: Vec<&str> = flags.iter().flat_map(|flag| ["--with-ns", flag]).collect();
        crate::fixture::refused(&f.start(&policy, line).flags(&flags).go(&f.stack)?, &[words])?;
    }
    let namespace = format!("network:{pod}");
    let with_ports = [&ports[..], &["--with-ns", &namespace]].concat();
    crate::fixture::refused(
        &f.start(&policy, line).flags(&with_ports).go(&f.stack)?,
        &["io.cella.ports works without a pod network only"],
    )?;
    let host_network = [&sandbox[..], &["--net-host"]].concat();
    crate::fixture::refused(
        &f.start(&policy, line).flags(&host_network).go(&f.stack)?,
        &["hostNetwork", "Service or a hostPort"],
    )?;
    lab.untouched("pod")
}

/// A node and two pods' namespaces. Removed when dropped.
struct Lab {
    name: String,
    dir: PathBuf,
    registry: String,
    kbs: String,
    /// SHA-256 of the file that the web servers have, hex.
    sum: String,
    joined: std::cell::RefCell<Vec<&'static str>>,
}

/// A pod's addresses.
struct Addresses {
    v4: String,
    v6: String,
}

/// A program that ends with its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Lab {
    fn new(stack: &Stack) -> Result<Self> {
        let dir = stack.path(&stack.fresh("lab"));
        fs::create_dir_all(dir.join("www"))?;
        fs::write(dir.join("www/f"), vec![b'w'; 8 * MIB])?;
        let sum = sum_of(&dir.join("www/f"))?;
        let port = |url: &str| {
            let port = url.rsplit(':').next();
            port.map(str::to_owned).context("no port")
        };
        let lab = Self {
            name: format!("cellae{}{}", std::process::id(), stack.fresh("n")),
            registry: port(stack.var("REGISTRY_GUEST"))?,
            kbs: port(stack.var("KBS_GUEST"))?,
            sum,
            joined: std::cell::RefCell::default(),
            dir,
        };
        for which in ["node", "pod", "other"] {
            succeed(Command::new("ip").args(["netns", "add", &lab.namespace(which)]), LIMIT)?;
        }
        for command in [
            "ip link set lo up",
            // Where the guests of these tests look for broker and registry.
            "ip address add 10.0.2.2/32 dev lo",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        ] {
            lab.within("node", &command.split(' ').collect::<Vec<_>>())?;
        }
        for port in [&lab.registry, &lab.kbs] {
            lab.relay(port)?;
        }
        Ok(lab)
    }

    fn namespace(&self, which: &str) -> String {
        format!("{}-{which}", self.name)
    }

    fn path(&self, which: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(self.namespace(which))
    }

    fn command(&self, which: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(which)]).args(words);
        command
    }

    /// What a command in a namespace prints.
    fn within(&self, which: &str, words: &[&str]) -> Result<String> {
        succeed(&mut self.command(which, words), LIMIT)
    }

    /// The plugin's answer.
    fn cni(&self, plugin: &str, command: &str, which: &str, config: &serde_json::Value) -> Result<String> {
        let input = self.dir.join("cni.json");
        fs::write(&input, config.to_string())?;
        let mut child = self.command("node", &[&format!("/usr/lib/cni/{plugin}")]);
        child
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", self.namespace(which))
            .env("CNI_NETNS", self.path(which))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/usr/lib/cni")
            .stdin(fs::File::open(&input)?);
        let out = run(&mut child, LIMIT)?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(
            out.status.success(),
            "{plugin} {command}: {text} {}",
            String::from_utf8_lossy(&out.stderr)
        );
        Ok(text)
    }

    fn bridge(&self) -> serde_json::Value {
        serde_json::json!({
            "cniVersion": "0.4.0", "name": self.name, "type": "bridge", "bridge": "cellabr0", "mtu": 1400,
            "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": { "type": "host-local", "dataDir": self.dir.join("ipam"),
                "ranges": [[{ "subnet": "10.88.77.0/24" }], [{ "subnet": "fd00:88:77::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }] },
        })
    }

    fn portmap(&self, forward: (u16, u16), result: &serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "cniVersion": "0.4.0", "name": self.name, "type": "portmap", "prevResult": result,
            "capabilities": { "portMappings": true },
            "runtimeConfig": { "portMappings": [{ "hostPort": forward.0, "containerPort": forward.1, "protocol": "tcp" }] },
        })
    }

    /// CNI ADD, as containerd does it.
    fn join(&self, which: &'static str, host_port: Option<(u16, u16)>) -> Result<Addresses> {
        let answer = self.cni("bridge", "ADD", which, &self.bridge())?;
        self.joined.borrow_mut().push(which);
        let result: serde_json::Value = serde_json::from_str(&answer)?;
        if let Some(forward) = host_port {
            self.cni("portmap", "ADD", which, &self.portmap(forward, &result))?;
        }
        let address = |number: usize| -> Result<String> {
            let text = result
                .pointer(&format!("/ips/{number}/address"))
                .and_then(|a| a.as_str());
            let text = text.and_then(|text| text.split_once('/')).context("no address")?;
            Ok(text.0.to_owned())
        };
        Ok(Addresses {
            v4: address(0)?,
            v6: address(1)?,
        })
    }

    /// A port of 10.0.2.2 in the node's namespace that leads to that port of this host's loopback.
    fn relay(&self, port: &str) -> Result<()> {
        let port: u16 = port.parse()?;
        let netns = NetNs::open(&self.path("node"))?;
        let listener = netns.run(|| Ok(TcpListener::bind(("10.0.2.2", port))))??;
        // Ends with the test program; the namespace goes when its last connection does.
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                for (from, to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))] {
                    let (Ok(mut from), Ok(mut to)) = (from, to) else {
                        continue;
                    };
                    thread::spawn(move || {
                        std::io::copy(&mut from, &mut to).ok();
                        to.shutdown(std::net::Shutdown::Write).ok();
                    });
                }
            }
        });
        Ok(())
    }

    /// A name server that knows one address, 192.0.2.77, for every name.
    fn name_server(&self, which: &str, address: &str) -> Result<()> {
        let address: IpAddr = address.parse()?;
        let netns = NetNs::open(&self.path(which))?;
        // An IPv6 address that is still looked for on the link cannot be bound to.
        let socket = wait_until(LIMIT, || Ok(netns.run(|| Ok(UdpSocket::bind((address, 53))))?.ok()))?;
        socket.set_read_timeout(Some(BOOT))?;
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                socket
                    .send_to(&answer(buffer.get(..length).unwrap_or_default()), from)
                    .ok();
            }
        });
        Ok(())
    }

    fn web_server(&self, which: &str) -> Result<Server> {
        let root = self.dir.join("www").to_string_lossy().into_owned();
        let mut command = self.command(which, &["busybox", "httpd", "-f", "-p", "[::]:9000", "-h", &root]);
        Ok(Server(command.stdin(Stdio::null()).spawn()?))
    }

    /// Runs a shell line in a guest on the pod's network, until it prints `word`.
    fn start(&self, f: &Fixture, line: &str, word: &str) -> Result<(Run, Child, String)> {
        let policy = f.allowed(&f.shell(line).container(NETWORK))?;
        let with = format!("network:{}", self.path("pod").display());
        let run = f.start(&policy, line).flags(&["--with-ns", &with]);
        let output = self.dir.join("output");
        let mut ctr = run.spawn(&f.stack, &output)?;
        let printed = wait_until(BOOT, || {
            let text = fs::read_to_string(&output).unwrap_or_default();
            Ok((text.contains(word) || ctr.try_wait()?.is_some()).then_some(text))
        })?;
        ensure!(printed.contains(word), "the container ended: {printed}");
        Ok((run, ctr, printed))
    }

    /// [`Self::untouched`], once what containerd does after the task's end has been done.
    fn becomes_untouched(&self, which: &str) -> Result<()> {
        let waited = wait_until(LIMIT, || Ok(self.untouched(which).ok()));
        waited.or_else(|_| self.untouched(which))
    }

    /// Nothing of ours is in the namespace.
    fn untouched(&self, which: &str) -> Result<()> {
        let (qdiscs, links) = (
            self.within(which, &["tc", "qdisc"])?,
            self.within(which, &["ip", "-o", "link"])?,
        );
        ensure!(
            !qdiscs.contains("ingress") && !links.contains("cella0"),
            "{qdiscs}\n{links}"
        );
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for which in self.joined.take() {
            if let Err(error) = self.cni("bridge", "DEL", which, &self.bridge()) {
                eprintln!("CNI DEL of {which}: {error:#}");
            }
        }
        for which in ["pod", "other", "node"] {
            let namespace = self.namespace(which);
            succeed(Command::new("ip").args(["netns", "delete", &namespace]), LIMIT).ok();
        }
    }
}

/// SHA-256 of a file, hex.
fn sum_of(path: &Path) -> Result<String> {
    let line = succeed(Command::new("sha256sum").arg(path), LIMIT)?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

fn bracketed(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

/// A DNS answer to a query (RFC 1035, 4.1): one A record for what it asks, none where it asks for something else.
fn answer(query: &[u8]) -> Vec<u8> {
    let question = query.get(12..).unwrap_or_default();
    let name = question.iter().position(|byte| *byte == 0).unwrap_or(0);
    let is_a = question.get(name + 1..name + 3) == Some(&[0, 1]);
    let mut answer = query.get(..2).unwrap_or_default().to_vec();
    answer.extend([0x85, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(question.get(..name + 5).unwrap_or_default());
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
    }
    answer
}

/// The one shim of the containerd at `socket`.
pub(crate) fn shim_of(socket: &str) -> Result<u32> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let cmdline = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).unwrap_or_default()).into_owned();
        if cmdline.contains("containerd-shim-cella-v2") && cmdline.contains(socket) {
            return Ok(pid);
        }
    }
    anyhow::bail!("no shim runs")
}
