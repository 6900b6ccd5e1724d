//! T1: what the host asks for and the policy does not name. Refused before the broker is asked for anything that matters:
//! the container is never made.
use anyhow::Result;
use cella_tests::Run;

use crate::{
    Case,
    fixture::{Fixture, HELLO, refused},
};

pub(crate) const CASES: &[(&str, Case)] = &[
    ("t1_another_argument", another_argument),
    ("t1_another_environment_variable", another_variable),
    ("t1_another_mount", another_mount),
    ("t1_a_folder_of_the_host", host_path),
    ("t1_another_image", another_image),
    ("t1_another_working_directory", another_directory),
    ("t1_another_user", another_user),
    ("t1_more_capabilities", more_capabilities),
    ("t1_privileged", privileged),
    ("t1_a_device", a_device),
];

fn hello() -> String {
    format!("echo {HELLO}")
}

fn denied(f: &Fixture, flags: &[&str], words: &[&str]) -> Result<()> {
    let policy = f.allowed(&f.shell(&hello()))?;
    let out = f.start(&policy, &hello()).flags(flags).go(&f.stack)?;
    refused(&out, &[&["policy denies"], words].concat())
}

fn another_argument(f: &Fixture) -> Result<()> {
    let policy = f.allowed(&f.shell(&hello()))?;
    let out = f.start(&policy, "echo something else").go(&f.stack)?;
    refused(&out, &["policy denies", "args[3]"])
}

fn another_variable(f: &Fixture) -> Result<()> {
    denied(f, &["--env", "LD_PRELOAD=/x.so"], &["LD_PRELOAD"])
}

fn another_mount(f: &Fixture) -> Result<()> {
    denied(
        f,
        &["--mount", "type=tmpfs,src=tmpfs,dst=/host,options=size=1m"],
        &["/host"],
    )
}

/// The shim names what cannot be; the agent, which must not depend on the shim, has its own tests of the same.
fn host_path(f: &Fixture) -> Result<()> {
    let policy = f.allowed(&f.shell(&hello()))?;
    let flags = ["--mount", "type=bind,src=/etc,dst=/host,options=rbind:ro"];
    let out = f.start(&policy, &hello()).flags(&flags).go(&f.stack)?;
    refused(
        &out,
        &["mount /host", "hostPath", "/etc", "cannot be kept confidential"],
    )
}

fn another_image(f: &Fixture) -> Result<()> {
    let policy = f.allowed(&f.shell(&hello()))?;
    let out = Run::new(
        &f.stack,
        &f.different_image,
        &policy,
        &["/bin/busybox", "sh", "-c", &hello()],
    )
    .go(&f.stack)?;
    refused(&out, &["policy denies", "image"])
}

fn another_directory(f: &Fixture) -> Result<()> {
    denied(f, &["--cwd", "/tmp"], &["working directory"])
}

fn another_user(f: &Fixture) -> Result<()> {
    denied(f, &["--user", "1000:1000"], &["uid"])
}

fn more_capabilities(f: &Fixture) -> Result<()> {
    denied(f, &["--cap-add", "CAP_SYS_ADMIN"], &["CAP_SYS_ADMIN"])
}

fn privileged(f: &Fixture) -> Result<()> {
    denied(f, &["--privileged"], &[])
}

fn a_device(f: &Fixture) -> Result<()> {
    denied(f, &["--device", "/dev/kvm"], &["/dev/kvm"])
}
