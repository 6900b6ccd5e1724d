//! What a policy leaves to the host: each "any", said plainly.
//!
//! A policy with one of these is for development and conformance tests. The host decides there, and the host is whom a
//! confidential guest is kept from.

use cella_policy::{ContainerPolicy, MaskedPaths, Policy, Rlimits, UserPolicy};

/// One sentence for each freedom, with the key that gives it.
pub(super) fn freedoms(policy: &Policy) -> Vec<String> {
    let pod = policy.pod();
    let mut all = Vec::new();
    if pod.forward_ports.is_any() {
        all.push("pod: the host may connect to every TCP port of the pod (forward-ports = \"any\")".to_owned());
    }
    if policy.network().egress.is_any() {
        all.push("pod: its containers may send what they hold to anybody (egress = \"any\")".to_owned());
    }
    if policy.network().ingress.is_any() {
        all.push("pod: whoever reaches it may use every port that its programs open (ingress = \"any\")".to_owned());
    }
    for container in policy.containers() {
        let of_it = of_container(container).into_iter();
        all.extend(of_it.map(|freedom| format!("{:?}: {freedom}", container.name)));
    }
    all
}

fn of_container(container: &ContainerPolicy) -> Vec<String> {
    let rules = [
        (
            container.args.is_any(),
            "the host may run any program of the image, with any arguments (args = \"any\")",
        ),
        (
            container.exec.is_any(),
            "the host may run any program beside it, and so read and change all that it holds (exec = \"any\")",
        ),
        (
            container.cwd.is_any(),
            "the host may start it in any directory (cwd = \"any\")",
        ),
        (
            container.user == UserPolicy::Any,
            "the host may run it as any user, root among them (user = \"any\")",
        ),
        (
            container.capabilities.is_any(),
            "the host may give it any capability (capabilities = \"any\")",
        ),
        (
            container.privileged,
            "the host may make it privileged: nothing in the guest is kept from it (privileged = true)",
        ),
        (
            container.new_privileges,
            "its programs may gain privileges, by set-user-id files (new-privileges = true)",
        ),
        (
            container.readonly_rootfs.is_any(),
            "the host may make its root file system writable (readonly-rootfs = \"any\")",
        ),
        (
            container.volumes.is_any(),
            "the host may mount files of its own wherever it likes in it (volumes = \"any\")",
        ),
        (
            container.rlimits == Rlimits::Any,
            "the host may set any resource limit (rlimits = \"any\")",
        ),
        (
            container.masked_paths == MaskedPaths::Any,
            "the host may hide paths of it, or show what the agent hides (masked-paths = \"any\")",
        ),
        (
            container.instances.is_any(),
            "the host may run any number of it at once (instances = \"any\")",
        ),
    ];
    let mut freedoms: Vec<String> = rules
        .into_iter()
        .filter(|(is_given, _)| *is_given)
        .map(|(_, words)| words.to_owned())
        .collect();
    let loads_code = |pattern: &&cella_policy::EnvPattern| {
        pattern.form().is_none_or(|form| form.fits("/x.so")) && LOADERS.iter().any(|name| pattern.allows_name(name))
    };
    if let Some(pattern) = container.env_allow.iter().find(loads_code) {
        let what = if pattern.is_any() { "any variable" } else { "variables" };
        freedoms.push(format!(
            "the host may set {what} that make its programs load other code, such as LD_PRELOAD (env-allow has {:?})",
            pattern.to_string()
        ));
    }
    freedoms
}

/// Variables by which a program loads code that its image did not mean it to. Not all there are.
const LOADERS: [&str; 8] = [
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "PATH",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "NODE_OPTIONS",
    "BASH_ENV",
];
