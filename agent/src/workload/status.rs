//! What operators may know about keys and models, with live figures from the kernel. Nothing secret is in it.

use std::{collections::BTreeMap, fs, path::Path};

use cella_protos::agent;
use protobuf::MessageField;

use super::{
    keys::Summary,
    model::{LoadedModel, LockedFile},
    proc::{self, FileId, Mapping},
};

/// The evidence that the key broker accepted.
pub(crate) fn evidence(summary: Summary) -> MessageField<agent::Evidence> {
    MessageField::some(agent::Evidence {
        tee: summary.tee.as_str().to_owned(),
        simulated: summary.simulated,
        measurement: summary.measurement,
        host_data: summary.host_data,
        tcb: summary.tcb,
        kbs: summary.kbs,
        keys: summary.keys.into_iter().map(|released| released.key).collect(),
        ..Default::default()
    })
}

/// Models with who maps them now. Reads smaps of every process that maps a model: some milliseconds, and longer with
/// many processes.
pub(crate) fn models<'m>(models: impl IntoIterator<Item = &'m LoadedModel>) -> Vec<agent::Model> {
    let models: Vec<_> = models.into_iter().collect();
    let files: Vec<_> = models
        .iter()
        .flat_map(|model| &model.files)
        .map(|file| file.id)
        .collect();
    if files.is_empty() {
        return Vec::new();
    }
    // A process that ends while it is looked at is no error: it maps nothing any more.
    let own = proc::mappings(Path::new("/proc/self")).unwrap_or_default();
    let others = others(Path::new("/proc"), &files);
    models.into_iter().map(|model| describe(model, &own, &others)).collect()
}

fn describe(model: &LoadedModel, own: &[Mapping], others: &BTreeMap<u32, Process>) -> agent::Model {
    agent::Model {
        name: model.name.clone(),
        version: model.version,
        artifact: model.artifact.clone(),
        files: model
            .files
            .iter()
            .map(|file| describe_file(file, own, others))
            .collect(),
        ..Default::default()
    }
}

fn describe_file(file: &LockedFile, own: &[Mapping], others: &BTreeMap<u32, Process>) -> agent::ModelFile {
    agent::ModelFile {
        path: file.path.clone(),
        bytes: file.bytes,
        mapped_bytes: file.mapped,
        locked_bytes: file.locked,
        huge_bytes: file.huge,
        agent_pss_bytes: file.own(own).map_or(0, |mapping| mapping.pss),
        mappings: others
            .iter()
            .filter_map(|(pid, process)| process.share(*pid, file.id))
            .collect(),
        ..Default::default()
    }
}

/// Another process that maps a model.
#[derive(Debug)]
struct Process {
    container: String,
    mappings: Vec<Mapping>,
}

impl Process {
    /// What it maps of one file, all mappings added up.
    fn share(&self, pid: u32, file: FileId) -> Option<agent::Mapping> {
        let mut share: Option<agent::Mapping> = None;
        for mapping in self.mappings.iter().filter(|mapping| mapping.file == file) {
            let share = share.get_or_insert_with(|| agent::Mapping {
                container: self.container.clone(),
                pid,
                ..Default::default()
            });
            share.rss_bytes = share.rss_bytes.saturating_add(mapping.rss);
            share.pss_bytes = share.pss_bytes.saturating_add(mapping.pss);
            share.writable |= mapping.writable;
        }
        share
    }
}

/// All processes but this one that map one of `files`.
fn others(proc_root: &Path, files: &[FileId]) -> BTreeMap<u32, Process> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(proc_root) else {
        return found;
    };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let process = entry.path();
        if pid == std::process::id() || !proc::maps_any(&process, files).unwrap_or(false) {
            continue;
        }
        if let Ok(mappings) = proc::mappings(&process) {
            found.insert(
                pid,
                Process {
                    container: container(&process),
                    mappings,
                },
            );
        }
    }
    found
}

/// The container's id: the last part of the process's cgroup, `0::/cella/<id>`.
fn container(process: &Path) -> String {
    let cgroups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    let path = cgroups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_the_last_part_of_the_cgroup() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup"), "1:name=x:/y\n0::/cella/server-1\n").unwrap();
        assert_eq!(container(folder.path()), "server-1");
        assert_eq!(container(Path::new("/nonexistent")), "");
    }

    #[test]
    fn processes_that_map_a_model_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let line = "7f00-8000 r--s 00000000 00:2b 17    /models/m.gguf\n";
        for (pid, maps) in [
            ("42", line),
            ("43", "7f00-8000 r--s 00000000 00:2b 18  /x\n"),
            ("self", line),
        ] {
            let process = folder.path().join(pid);
            fs::create_dir(&process).unwrap();
            fs::write(process.join("maps"), maps).unwrap();
            fs::write(process.join("smaps"), format!("{maps}Rss:  8 kB\nPss:  4 kB\n")).unwrap();
            fs::write(process.join("cgroup"), "0::/cella/server\n").unwrap();
        }
        let file = FileId {
            device: (0, 0x2b),
            inode: 17,
        };
        let found = others(folder.path(), &[file]);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [42]);
        let share = found.get(&42).unwrap().share(42, file).unwrap();
        assert_eq!(
            (
                share.container.as_str(),
                share.rss_bytes,
                share.pss_bytes,
                share.writable
            ),
            ("server", 8192, 4096, false)
        );
    }

    #[test]
    fn mappings_of_one_file_add_up() {
        let mapping = |inode, rss, writable| Mapping {
            range: 0..4096,
            file: FileId { device: (0, 1), inode },
            writable,
            size: 4096,
            rss,
            pss: rss / 2,
            locked: 0,
            huge: 0,
            flags: Vec::new(),
        };
        let process = Process {
            container: "c".into(),
            mappings: vec![mapping(7, 100, false), mapping(7, 20, true), mapping(8, 5, false)],
        };
        let share = process
            .share(
                42,
                FileId {
                    device: (0, 1),
                    inode: 7,
                },
            )
            .unwrap();
        assert_eq!(
            (share.pid, share.rss_bytes, share.pss_bytes, share.writable),
            (42, 120, 60, true)
        );
        assert!(
            process
                .share(
                    42,
                    FileId {
                        device: (0, 1),
                        inode: 9
                    }
                )
                .is_none()
        );
    }
}
