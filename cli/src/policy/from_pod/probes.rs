//! Probes and lifecycle hooks: what the kubelet runs in a container, and which ports it connects to.

use std::collections::BTreeMap;

use super::container::{Port, add_port, port_number};
use super::refusal::PodError;
use super::yaml::Node;

/// Adds the commands to `exec` and the ports to `ports`. `named` are the container's ports by name.
pub(super) fn read(
    node: &Node,
    place: &str,
    named: &BTreeMap<String, u16>,
    exec: &mut Vec<Vec<String>>,
    ports: &mut Vec<Port>,
) -> Result<(), PodError> {
    let handlers = [
        (&["startupProbe"][..], "startupProbe"),
        (&["livenessProbe"], "livenessProbe"),
        (&["readinessProbe"], "readinessProbe"),
        (&["lifecycle", "postStart"], "lifecycle.postStart"),
        (&["lifecycle", "preStop"], "lifecycle.preStop"),
    ];
    for (way, name) in handlers {
        let Some(handler) = node.at(way) else { continue };
        let at = format!("{place} {name}");
        if let Some(command) = handler.at(&["exec", "command"]) {
            let words: Result<Vec<String>, _> = command
                .items()?
                .iter()
                .map(|word| word.text().map(str::to_owned))
                .collect();
            let words = words?;
            if words.is_empty() {
                return Err(PodError::missing(command, format!("{at}.exec.command")));
            }
            if !exec.contains(&words) {
                exec.push(words);
            }
        }
        for kind in ["httpGet", "tcpSocket", "grpc"] {
            let Some(target) = handler.get(kind) else { continue };
            if let Some(host) = target.get("host") {
                let why = "the kubelet would ask another host; leave it out";
                return Err(PodError::secret_for_nobody(host, format!("{at}.{kind}.host"), why));
            }
            let port = super::field(target, "port", &at)?;
            let number = match named.get(port.word()?) {
                Some(number) => *number,
                None => port_number(port, &at)?,
            };
            add_port(ports, number, "tcp");
        }
    }
    Ok(())
}
