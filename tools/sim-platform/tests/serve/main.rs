//! The program against a real QEMU, which is paused: evidence is about what QEMU was started with.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod machine;
mod tdx;

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    process::{Command, Stdio},
};

use cella_attest::{Anchors, ChainError, Expected, VerifyError, verify};
use machine::{Machine, Running, firmware, names, platform, terminate, wait_for};

const APPEND: &str = "console=ttyS0 quiet panic=-1";
const CHALLENGE: [u8; 64] = [9; 64];

#[test]
fn evidence_is_of_the_running_qemu() {
    let machine = Machine::new();
    let mut service = machine.serve();
    let qemu = machine.qemu(APPEND, "0x30000");
    let verified = machine.verify(&machine.ask(&CHALLENGE).unwrap(), &CHALLENGE).unwrap();
    assert!(verified.simulated);
    assert_eq!(verified.measurement, machine.digest(APPEND));
    assert_eq!(
        (verified.report_data, verified.host_data, verified.policy),
        (CHALLENGE, machine::HOST_DATA, 0x30000)
    );

    let other = machine.ask(&[1; 64]).unwrap();
    assert!(
        matches!(machine.verify(&other, &CHALLENGE), Err(VerifyError::ReportData)),
        "each challenge has its report"
    );

    let expected = Expected {
        report_data: &CHALLENGE,
        host_data: None,
        vmpl: 0,
    };
    let refused = verify(&machine.ask(&CHALLENGE).unwrap(), &Anchors::amd(), &expected);
    assert!(
        matches!(refused, Err(VerifyError::Chain(ChainError::NotAnAnchor { .. }))),
        "{refused:?}"
    );

    drop(qemu);
    assert!(service.ended().success(), "the service ends with QEMU");
    let log = service.stderr();
    assert!(
        log.contains("guest measured") && log.contains("QEMU has ended"),
        "{log}"
    );
    assert_eq!(
        names(&machine.path("")),
        ["initrd", "kernel", "qemu.pid", "state"],
        "the socket is removed"
    );
}

#[test]
fn t13_another_command_line_has_another_digest() {
    let machine = Machine::new();
    let _service = machine.serve();
    let changed = "console=ttyS0 quiet panic=-2";
    let _qemu = machine.qemu(changed, "0x30000");
    let verified = machine.verify(&machine.ask(&CHALLENGE).unwrap(), &CHALLENGE).unwrap();
    assert_eq!(verified.measurement, machine.digest(changed));
    assert_ne!(verified.measurement, machine.digest(APPEND));
}

#[test]
fn another_initrd_has_another_digest() {
    let machine = Machine::new();
    let original = machine.digest(APPEND);
    let mut initrd = fs::read(machine.path("initrd")).unwrap();
    initrd[0] ^= 1;
    fs::write(machine.path("initrd"), initrd).unwrap();
    let _service = machine.serve();
    let _qemu = machine.qemu(APPEND, "0x30000");
    let verified = machine.verify(&machine.ask(&CHALLENGE).unwrap(), &CHALLENGE).unwrap();
    assert_ne!(verified.measurement, original);
}

#[test]
fn t22_a_debug_launch_says_so() {
    let machine = Machine::new();
    let _service = machine.serve();
    let _qemu = machine.qemu(APPEND, "0xb0000");
    let refused = machine.verify(&machine.ask(&CHALLENGE).unwrap(), &CHALLENGE);
    assert!(
        matches!(refused, Err(VerifyError::DebugAllowed { policy: 0xb0000 })),
        "{refused:?}"
    );
}

#[test]
fn a_launch_that_could_be_another_gets_no_evidence() {
    let machine = Machine::new();
    let mut service = machine.serve();
    let qemu = machine.qemu_with(APPEND, "0x30000", &["-fw_cfg", "name=opt/cella/x,string=y"]);
    assert_eq!(machine.ask(&CHALLENGE), None);
    drop(qemu);
    assert!(service.ended().success());
    let log = service.stderr();
    assert!(log.contains("-fw_cfg is refused"), "{log}");
}

#[test]
fn only_qemu_is_attested() {
    let machine = Machine::new();
    let sleeper = Running(Command::new("sleep").arg("600").spawn().unwrap());
    let command = &mut machine.serve_command();
    let mut service = Running(
        command
            .args(["--qemu-pid", &sleeper.0.id().to_string()])
            .spawn()
            .unwrap(),
    );
    assert!(!service.ended().success());
    let log = service.stderr();
    assert!(log.contains("sleep, not qemu-system-x86_64"), "{log}");

    fs::write(machine.path("qemu.pid"), "no number\n").unwrap();
    let mut service = Running(
        machine
            .serve_command()
            .arg("--qemu-pidfile")
            .arg(machine.path("qemu.pid"))
            .spawn()
            .unwrap(),
    );
    assert!(!service.ended().success());
    let log = service.stderr();
    assert!(log.contains("holds no process id"), "{log}");
}

#[test]
fn peers_that_ask_badly_do_not_block_others() {
    let machine = Machine::new();
    let _service = machine.serve();
    let _qemu = machine.qemu(APPEND, "0x30000");
    let silent: Vec<_> = (0..3).map(|_| machine.connect()).collect();
    assert!(machine.ask(&CHALLENGE).is_some(), "three silent peers leave a place");
    let mut short = machine.connect();
    short.write_all(&CHALLENGE[..63]).unwrap();
    short.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    short.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"", "a short request has no answer");
    assert!(machine.ask(&CHALLENGE).is_some());
    let mut fourth = machine.connect();
    fourth.write_all(&CHALLENGE[..1]).unwrap();
    let evidence = machine.ask(&CHALLENGE);
    assert!(
        evidence.is_some(),
        "places are taken back from silent peers after their deadline"
    );
    drop(silent);
}

#[test]
fn a_signal_ends_it_cleanly() {
    let machine = Machine::new();
    let mut service = machine.serve();
    terminate(&service.0);
    assert!(service.ended().success());
    assert!(!machine.path("vsock_1027").exists());
}

#[test]
fn what_is_missing_is_named() {
    let machine = Machine::new();
    let failed = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let mut other_state = platform();
    other_state
        .args(["serve", "--state"])
        .arg(machine.path("absent"))
        .arg("--socket")
        .arg(machine.path("s"));
    other_state.arg("--firmware").arg(firmware()).args(["--qemu-pid", "1"]);
    let error = failed(&mut other_state);
    assert!(error.contains("absent/vcek.key"), "{error}");

    let error = failed(&mut machine.serve_command());
    assert!(error.contains("--qemu-pidfile"), "{error}");

    fs::write(machine.path("vsock_1027"), "").unwrap();
    let error = failed(machine.serve_command().args(["--qemu-pid", "1"]));
    assert!(error.contains("vsock_1027") && error.contains("exists"), "{error}");
}

#[test]
fn init_makes_one_platform_however_often_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("deep/state");
    let init = || {
        platform()
            .args(["init", "--state"])
            .arg(&state)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    };
    let together: Vec<_> = (0..2).map(|_| init().unwrap()).collect();
    for child in together {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("{}\n", state.join("ark.pem").display())
        );
    }
    let keys = || ["vcek.key", "tdx/root.key", "tdx/collateral.json"].map(|name| fs::read(state.join(name)).unwrap());
    let made = keys();
    assert!(init().unwrap().wait_with_output().unwrap().status.success());
    assert_eq!(keys(), made, "nothing is made twice, and young collateral is kept");
    assert_eq!(names(&state), ["ark.pem", "ask.pem", "tdx", "vcek.key", "vcek.pem"]);
    assert_eq!(names(state.parent().unwrap()), ["state"]);

    fs::remove_file(state.join("vcek.key")).unwrap();
    let output = init().unwrap().wait_with_output().unwrap();
    assert!(!output.status.success(), "a folder with other things is left alone");
    assert_eq!(names(&state), ["ark.pem", "ask.pem", "tdx", "vcek.pem"]);
}

#[test]
fn a_folder_of_before_tdx_gets_what_it_lacks() {
    let machine = Machine::new();
    let key = fs::read(machine.path("state/vcek.key")).unwrap();
    fs::remove_dir_all(machine.path("state/tdx")).unwrap();
    let mut old = machine.serve_command();
    let output = old.args(["--qemu-pid", "1"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && error.contains("`init` makes them"),
        "{error}"
    );
    let init = platform()
        .args(["init", "--state"])
        .arg(machine.path("state"))
        .output()
        .unwrap();
    assert!(init.status.success());
    assert_eq!(fs::read(machine.path("state/vcek.key")).unwrap(), key);
    assert!(machine.path("state/tdx/root.pem").exists());
}

#[test]
fn log_lines_can_be_json() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let output = platform()
        .args(["init", "--log-format", "json", "--state"])
        .arg(&state)
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stderr).unwrap();
    let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(line["msg"], "making the platform's keys");
    wait_for("the key", || state.join("vcek.key").exists().then_some(()));
}
