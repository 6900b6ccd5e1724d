//! Two network namespaces as CNI's bridge plugin leaves them: a node with a bridge, a pod with `eth0` on it.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use cella_shim::network::NetNs;

/// The pod's addresses; the node's end in 1.
pub(crate) const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 2];

/// Removed when dropped.
pub(crate) struct Lab {
    node: String,
    pod: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Namespaces without any interface but the loopback, which is down.
    pub(crate) fn empty() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |what| format!("cellat{}-{number}-{what}", std::process::id());
        let lab = Self {
            node: name("node"),
            pod: name("pod"),
        };
        for namespace in [&lab.node, &lab.pod] {
            run("ip", &["netns", "add", namespace]);
        }
        lab
    }

    /// With a bridge on the node and the pod's `eth0` on it: IPv4 and IPv6, MTU 1400, default routes.
    pub(crate) fn bridged() -> Self {
        let lab = Self::empty();
        lab.on_node("ip link add br0 type bridge");
        lab.on_node("ip link set br0 up mtu 1400");
        lab.on_node("ip address add 10.88.77.1/24 dev br0");
        lab.on_node("ip address add fd00:88:77::1/64 dev br0 nodad");
        lab.add_interface("eth0", 2);
        lab.in_pod("ip address add 10.88.77.2/24 dev eth0");
        lab.in_pod("ip address add fd00:88:77::2/64 dev eth0 nodad");
        lab.in_pod("ip route add default via 10.88.77.1");
        lab.in_pod("ip route add default via fd00:88:77::1");
        lab
    }

    /// One more interface of the pod's on the bridge.
    pub(crate) fn add_interface(&self, name: &str, number: u8) {
        let pod = &self.pod;
        self.on_node(&format!(
            "ip link add veth{number} mtu 1400 type veth peer name {name} mtu 1400 address 02:00:00:00:77:{number:02x} netns {pod}"
        ));
        self.on_node(&format!("ip link set veth{number} master br0 up"));
        self.in_pod(&format!("ip link set {name} up"));
    }

    pub(crate) fn pod(&self) -> NetNs {
        NetNs::open(&self.pod_path()).unwrap()
    }

    pub(crate) fn pod_path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.pod)
    }

    /// What a command in the pod's namespace prints.
    pub(crate) fn in_pod(&self, command: &str) -> String {
        self.within(&self.pod, command)
    }

    pub(crate) fn on_node(&self, command: &str) -> String {
        self.within(&self.node, command)
    }

    /// Nothing of ours is in the pod's namespace.
    pub(crate) fn assert_untouched(&self) {
        let (qdiscs, links) = (self.in_pod("tc qdisc show"), self.in_pod("ip -o link show"));
        assert!(!qdiscs.contains("ingress"), "{qdiscs}");
        assert!(!links.contains("cella0"), "{links}");
    }

    fn within(&self, namespace: &str, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        run("ip", &[&["netns", "exec", namespace], words.as_slice()].concat())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.pod, &self.node] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&stderr);
    assert!(
        status.success(),
        "{program} {}: {text} (these tests need root)",
        args.join(" ")
    );
    String::from_utf8(stdout).unwrap()
}
