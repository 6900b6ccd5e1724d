//! From messages to the policy's and our own types. Nothing is judged here.

use cella_policy::check::{ContainerRequest, RequestedMount, RequestedRlimit};
use cella_protos::agent::{ContainerSpec, CreateContainerRequest};

use crate::container::WantedPipes;

/// What the policy looks at. Every field of the message that means anything is in it or in the functions below;
/// `no_new_privileges`, masked and read-only paths are the agent's own and always on.
pub(super) fn container_request(request: &CreateContainerRequest) -> ContainerRequest {
    let spec: &ContainerSpec = &request.spec;
    let sets = &spec.capabilities;
    let capabilities = [
        &sets.bounding,
        &sets.effective,
        &sets.inheritable,
        &sets.permitted,
        &sets.ambient,
    ]
    .into_iter()
    .flatten();
    ContainerRequest {
        name: request.name.clone(),
        images: request.images.clone(),
        args: spec.args.clone(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone(),
        uid: spec.user.uid,
        gid: spec.user.gid,
        additional_gids: spec.user.additional_gids.clone(),
        mounts: spec
            .mounts
            .iter()
            .map(|mount| RequestedMount {
                destination: mount.destination.clone(),
                kind: mount.type_.clone(),
            })
            .collect(),
        capabilities: capabilities.cloned().collect(),
        rlimits: spec
            .rlimits
            .iter()
            .map(|limit| RequestedRlimit {
                kind: limit.type_.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        hostname: spec.hostname.clone(),
        terminal: spec.terminal,
        readonly_rootfs: spec.readonly_rootfs,
        sysctl: spec.sysctl.clone().into_iter().collect(),
        devices: spec.devices.clone(),
        hooks: spec.hooks.clone(),
    }
}

/// The pipes that are asked for.
pub(super) fn pipes(request: &CreateContainerRequest) -> WantedPipes {
    WantedPipes {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
    }
}

#[cfg(test)]
mod tests {
    use cella_protos::agent::{Capabilities, Mount, Rlimit, User};
    use protobuf::MessageField;

    use super::*;

    #[test]
    fn t1_every_field_reaches_the_policy() {
        let spec = ContainerSpec {
            args: vec!["a".into()],
            env: vec!["E=1".into()],
            cwd: "/w".into(),
            user: MessageField::some(User {
                uid: 1,
                gid: 2,
                additional_gids: vec![3],
                ..Default::default()
            }),
            mounts: vec![Mount {
                destination: "/m".into(),
                type_: "bind".into(),
                ..Default::default()
            }],
            capabilities: MessageField::some(Capabilities {
                bounding: vec!["A".into()],
                effective: vec!["B".into()],
                inheritable: vec!["C".into()],
                permitted: vec!["D".into()],
                ambient: vec!["E".into()],
                ..Default::default()
            }),
            rlimits: vec![Rlimit {
                type_: "RLIMIT_NOFILE".into(),
                soft: 1,
                hard: 2,
                ..Default::default()
            }],
            hostname: "h".into(),
            readonly_rootfs: true,
            terminal: true,
            sysctl: [("k".to_owned(), "v".to_owned())].into(),
            devices: vec!["/dev/x".into()],
            hooks: vec!["/hook".into()],
            ..Default::default()
        };
        let request = CreateContainerRequest {
            name: "n".into(),
            images: vec!["i".into()],
            spec: MessageField::some(spec),
            ..Default::default()
        };
        let expected = ContainerRequest {
            name: "n".into(),
            images: vec!["i".into()],
            args: vec!["a".into()],
            env: vec!["E=1".into()],
            cwd: "/w".into(),
            uid: 1,
            gid: 2,
            additional_gids: vec![3],
            mounts: vec![RequestedMount {
                destination: "/m".into(),
                kind: "bind".into(),
            }],
            capabilities: ["A", "B", "C", "D", "E"].map(str::to_owned).to_vec(),
            rlimits: vec![RequestedRlimit {
                kind: "RLIMIT_NOFILE".into(),
                soft: 1,
                hard: 2,
            }],
            hostname: "h".into(),
            terminal: true,
            readonly_rootfs: true,
            sysctl: [("k".to_owned(), "v".to_owned())].into(),
            devices: vec!["/dev/x".into()],
            hooks: vec!["/hook".into()],
        };
        assert_eq!(container_request(&request), expected);
    }

    #[test]
    fn a_request_without_a_specification_is_empty() {
        assert_eq!(
            container_request(&CreateContainerRequest::new()),
            ContainerRequest::default()
        );
    }
}
