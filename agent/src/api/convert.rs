//! From messages to the policy's and our own types. Nothing is judged here.

use cella_attest::cert_table::{MAX_CERT, MAX_CERTS};
use cella_policy::{
    ContainerPolicy, VolumeKind,
    check::{
        Admission, AdmittedProcess, ContainerRequest, ProcessRequest, RequestedMount, RequestedRlimit, check_exec,
    },
};
use cella_protos::agent::{
    Capabilities, ConfigureNetworkRequest, ContainerSpec, CreateContainerRequest, ExecProcessRequest, Mount,
    ResizeTerminalRequest, Rlimit,
};

use super::ApiError;
use crate::{
    container::WantedPipes,
    launch::{HostSeccomp, TerminalSize},
};

/// What the policy looks at, with the kinds of the pod's volumes. Every field of the message that means anything is in it or
/// in the functions below; the host's system call filter is taken from the message where the policy admits one.
pub(super) fn container_request(
    request: &CreateContainerRequest,
    volume_kind: impl Fn(&str) -> Option<VolumeKind>,
) -> ContainerRequest {
    let spec: &ContainerSpec = &request.spec;
    ContainerRequest {
        name: request.name.clone(),
        images: request.images.clone(),
        process: ProcessRequest {
            args: spec.args.clone(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            uid: spec.user.uid,
            gid: spec.user.gid,
            additional_gids: spec.user.additional_gids.clone(),
            user_name: spec.user.name.clone(),
            capabilities: capabilities(&spec.capabilities),
            rlimits: rlimits(&spec.rlimits),
            terminal: spec.terminal,
            no_new_privileges: spec.no_new_privileges,
        },
        mounts: spec.mounts.iter().map(|one| mount(one, &volume_kind)).collect(),
        hostname: spec.hostname.clone(),
        readonly_rootfs: spec.readonly_rootfs,
        masked_paths: spec.masked_paths.clone(),
        readonly_paths: spec.readonly_paths.clone(),
        sysctl: spec.sysctl.clone().into_iter().collect(),
        devices: spec.devices.clone(),
        hooks: spec.hooks.clone(),
        shared_pid: spec.shared_pid_namespace,
        host_namespaces: spec.host_namespaces.clone(),
        privileged: spec.privileged,
    }
}

fn mount(mount: &Mount, volume_kind: impl Fn(&str) -> Option<VolumeKind>) -> RequestedMount {
    RequestedMount {
        destination: mount.destination.clone(),
        kind: mount.type_.clone(),
        volume: mount.volume.clone(),
        volume_kind: match mount.volume.as_str() {
            "" => None,
            name => volume_kind(name),
        },
        read_only: mount.options.iter().any(|option| option == "ro"),
    }
}

/// The names of all five sets.
fn capabilities(sets: &Capabilities) -> Vec<String> {
    let sets = [
        &sets.bounding,
        &sets.effective,
        &sets.inheritable,
        &sets.permitted,
        &sets.ambient,
    ];
    sets.into_iter().flatten().cloned().collect()
}

fn rlimits(limits: &[Rlimit]) -> Vec<RequestedRlimit> {
    let one = |limit: &Rlimit| RequestedRlimit {
        kind: limit.type_.clone(),
        soft: limit.soft,
        hard: limit.hard,
    };
    limits.iter().map(one).collect()
}

/// The pipes that are asked for.
pub(super) fn pipes(request: &CreateContainerRequest) -> WantedPipes {
    WantedPipes {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
    }
}

/// The pipes that a further process asks for.
pub(super) fn exec_pipes(request: &ExecProcessRequest) -> WantedPipes {
    WantedPipes {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
    }
}

/// A further process as the policy admits it.
pub(super) fn exec_process(
    policy: &ContainerPolicy,
    request: &ExecProcessRequest,
) -> Result<AdmittedProcess, ApiError> {
    check_exec(policy, &exec_request(request)).map_err(ApiError::Denied)
}

/// What the policy looks at. Every field of the message is in it, but for names and pipes.
fn exec_request(request: &ExecProcessRequest) -> ProcessRequest {
    ProcessRequest {
        args: request.args.clone(),
        env: request.env.clone(),
        cwd: request.cwd.clone(),
        uid: request.user.uid,
        gid: request.user.gid,
        additional_gids: request.user.additional_gids.clone(),
        user_name: request.user.name.clone(),
        capabilities: capabilities(&request.capabilities),
        rlimits: rlimits(&request.rlimits),
        terminal: request.terminal,
        no_new_privileges: request.no_new_privileges,
    }
}

/// The host's system call filter, where the policy lets it have one and it has one.
pub(super) fn host_seccomp(admission: &Admission<'_>, json: &[u8]) -> Result<Option<HostSeccomp>, ApiError> {
    let wanted = admission.host_seccomp && !json.is_empty();
    let filter = wanted.then(|| HostSeccomp::parse(json)).transpose();
    filter.map_err(ApiError::Seccomp)
}

/// A size that a terminal can have.
pub(super) fn terminal_size(request: &ResizeTerminalRequest) -> Result<TerminalSize, ApiError> {
    match (u16::try_from(request.columns), u16::try_from(request.rows)) {
        (Ok(columns), Ok(rows)) => Ok(TerminalSize { columns, rows }),
        _ => Err(ApiError::TerminalSize {
            columns: request.columns,
            rows: request.rows,
        }),
    }
}

/// The chain of the host's processor, bounded; what it is worth, the key broker finds out.
pub(super) fn certificates(request: &ConfigureNetworkRequest) -> Result<Vec<Vec<u8>>, ApiError> {
    let chain = &request.certificates;
    if chain.len() <= MAX_CERTS && chain.iter().all(|der| (1..=MAX_CERT).contains(&der.len())) {
        return Ok(chain.clone());
    }
    Err(ApiError::Certificates {
        count: chain.len(),
        longest: chain.iter().map(Vec::len).max().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use cella_protos::agent::User;
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
                name: "u".into(),
                ..Default::default()
            }),
            mounts: vec![Mount {
                destination: "/m".into(),
                type_: "bind".into(),
                volume: "v".into(),
                options: vec!["rbind".into(), "ro".into()],
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
            no_new_privileges: true,
            readonly_rootfs: true,
            masked_paths: vec!["/masked".into()],
            readonly_paths: vec!["/read".into()],
            shared_pid_namespace: true,
            host_namespaces: vec!["network".into()],
            privileged: true,
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
            process: ProcessRequest {
                args: vec!["a".into()],
                env: vec!["E=1".into()],
                cwd: "/w".into(),
                uid: 1,
                gid: 2,
                additional_gids: vec![3],
                user_name: "u".into(),
                capabilities: ["A", "B", "C", "D", "E"].map(str::to_owned).to_vec(),
                rlimits: vec![RequestedRlimit {
                    kind: "RLIMIT_NOFILE".into(),
                    soft: 1,
                    hard: 2,
                }],
                terminal: true,
                no_new_privileges: true,
            },
            mounts: vec![RequestedMount {
                destination: "/m".into(),
                kind: "bind".into(),
                volume: "v".into(),
                volume_kind: Some(VolumeKind::Secret),
                read_only: true,
            }],
            hostname: "h".into(),
            readonly_rootfs: true,
            masked_paths: vec!["/masked".into()],
            readonly_paths: vec!["/read".into()],
            shared_pid: true,
            host_namespaces: vec!["network".into()],
            privileged: true,
            sysctl: [("k".to_owned(), "v".to_owned())].into(),
            devices: vec!["/dev/x".into()],
            hooks: vec!["/hook".into()],
        };
        let kinds = |name: &str| (name == "v").then_some(VolumeKind::Secret);
        assert_eq!(container_request(&request, kinds), expected);
    }

    #[test]
    fn a_request_without_a_specification_is_empty() {
        assert_eq!(
            container_request(&CreateContainerRequest::new(), |_| None),
            ContainerRequest::default()
        );
    }
    #[test]
    fn certificates_are_bounded() {
        let with = |certificates: Vec<Vec<u8>>| {
            super::certificates(&ConfigureNetworkRequest {
                certificates,
                ..Default::default()
            })
        };
        for chain in [vec![], vec![vec![1]], vec![vec![1; MAX_CERT]; MAX_CERTS]] {
            assert_eq!(with(chain.clone()).unwrap(), chain);
        }
        for chain in [vec![vec![]], vec![vec![1; MAX_CERT + 1]], vec![vec![1]; MAX_CERTS + 1]] {
            assert!(matches!(with(chain), Err(ApiError::Certificates { .. })));
        }
    }
}
