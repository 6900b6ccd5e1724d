//! The snapshotter under a real containerd: what its clients do before any VM is there.
//!
//! Needs root, for containerd mounts roots to look users up, and the containerd that `scripts/setup` unpacks.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "all of it is test code"
)]

mod node;

use std::process::Command;

use cella_shim::bundle::oci;
use cella_shim::containerd::{candidates, merge};
use cella_shim::users;
use node::{Node, image};
use serde_json::Value;

fn user_of(node: &Node, container: &str) -> oci::User {
    let info: Value = serde_json::from_str(&node.ctr(&["container", "info", container])).unwrap();
    let user = serde_json::from_value::<oci::User>(info["Spec"]["process"]["user"].clone()).unwrap();
    assert_eq!(info["Snapshotter"], "cella");
    user
}

fn create(node: &Node, image: &str, id: &str, flags: &[&str]) {
    let arguments = [&["container", "create", "--snapshotter", "cella"], flags, &[image, id]].concat();
    node.ctr(&arguments);
}

#[test]
fn a_user_s_name_goes_through_containerd_and_comes_out_as_itself() {
    let node = Node::start();
    node.import(&image("localhost/app:1", "zoe", "1"), "cella");
    let roots = [node.path("snap/rootfs").to_str().unwrap().to_owned()];
    create(&node, "localhost/app:1", "own", &[]);
    for (id, user, name) in [
        ("a", "nobody", "nobody"),
        ("b", "www-data:staff", "www-data:staff"),
        ("c", "1000:staff", "1000:staff"),
    ] {
        create(&node, "localhost/app:1", id, &["--user", user]);
        let user = users::translate(&user_of(&node, id), &roots).unwrap();
        assert_eq!((user.name.as_str(), user.additional_gids.len()), (name, 0));
    }
    let own = users::translate(&user_of(&node, "own"), &roots).unwrap();
    assert_eq!(own.name, "zoe", "of the image's configuration");
    create(&node, "localhost/app:1", "d", &["--user", "1000:2000"]);
    let plain = users::translate(&user_of(&node, "d"), &roots).unwrap();
    assert_eq!((plain.uid, plain.gid, plain.name.as_str()), (1000, 2000, ""));
}

#[test]
fn an_image_of_another_snapshotter_can_be_used_and_leaves_no_layer() {
    let node = Node::start();
    node.import(&image("localhost/app:1", "zoe", "1"), "native");
    assert_eq!(node.snapshots(), Vec::<String>::new());
    create(&node, "localhost/app:1", "c", &[]);
    assert_eq!(node.snapshots().len(), 3, "two layers and a root");
    node.until("no layer is left", || {
        std::fs::read_dir(node.path("snap/unpack")).unwrap().next().is_none()
    });
    let roots = [node.path("snap/rootfs").to_str().unwrap().to_owned()];
    assert_eq!(users::translate(&user_of(&node, "c"), &roots).unwrap().name, "zoe");
    // containerd collects what nobody uses, from the top down.
    node.ctr(&["container", "rm", "c"]);
    node.ctr(&["images", "rm", "--sync", "localhost/app:1"]);
    node.until("no snapshot is left", || node.snapshots().is_empty());
}

#[test]
fn a_kill_of_both_loses_nothing() {
    let mut node = Node::start();
    node.import(&image("localhost/app:1", "zoe", "1"), "cella");
    create(&node, "localhost/app:1", "before", &[]);
    let (snapshots, user) = (node.snapshots(), user_of(&node, "before"));
    node.kill_snapshotter();
    node.start_snapshotter();
    assert_eq!(node.snapshots(), snapshots, "the snapshotter alone");
    node.kill_snapshotter();
    node.kill_containerd();
    node.start_snapshotter();
    node.start_containerd();
    assert_eq!(node.snapshots(), snapshots, "both");
    create(&node, "localhost/app:1", "after", &[]);
    assert_eq!(user_of(&node, "after").uid, user.uid, "numbers keep their meaning");
    // In use, an image may go; its layers stay for the containers.
    node.ctr(&["images", "rm", "--sync", "localhost/app:1"]);
    assert_eq!(node.snapshots().len(), snapshots.len() + 1);
}

/// A small file system that ends with its test.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(path: std::path::PathBuf) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path);
        assert!(mount.status().unwrap().success());
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the snapshotter, which has files there, ends after it.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_is_told_by_name_and_forgotten_when_there_is_room() {
    let mut node = Node::start();
    node.kill_snapshotter();
    let disk = Disk::mount(node.path("snap"));
    node.start_snapshotter();
    let filling = disk.0.join("filling");
    assert!(
        std::fs::write(&filling, vec![0; 2 << 20]).is_err(),
        "there is room for more"
    );
    let image = image("localhost/app:1", "zoe", "1");
    let refused = node.try_import(&image, "cella").unwrap_err();
    assert!(refused.contains("No space left on device"), "{refused}");
    assert!(refused.contains(disk.0.to_str().unwrap()), "{refused}");
    std::fs::remove_file(&filling).unwrap();
    node.import(&image, "cella");
    create(&node, "localhost/app:1", "c", &[]);
    assert_eq!(node.snapshots().len(), 3, "two layers and a root");
}

#[tokio::test]
async fn an_image_with_the_same_layers_is_offered_by_its_own_digest() {
    let node = Node::start();
    let (old, new) = (
        image("localhost/app:1", "zoe", "1"),
        image("localhost/app:2", "zoe", "2"),
    );
    assert_ne!(old.digest, new.digest);
    node.import(&old, "cella");
    node.import(&new, "cella");
    create(&node, "localhost/app:2", "c", &[]);
    let found = candidates(&node.path("c.sock"), "default", "c", None).await.unwrap();
    let offered = vec![format!("localhost/app@{}", old.digest)];
    let all = merge(found, Ok(offered.clone())).unwrap();
    assert_eq!(all, [format!("localhost/app@{}", new.digest), offered[0].clone()]);
    let found = candidates(&node.path("c.sock"), "default", "c", Some("localhost/app:1"))
        .await
        .unwrap();
    assert_eq!(found[0], offered[0], "the pod's word comes first");
}
