//! The program as a TDX platform, against a real QEMU, which is paused.

use std::fs;

use cella_attest::tdx::{EventLog, TdxError};

use crate::machine::{self, Machine, firmware, tdx_firmware, tdx_object};

const APPEND: &str = "console=ttyS0 quiet panic=-1";
const CHALLENGE: [u8; 64] = [9; 64];

#[test]
fn a_quote_is_of_the_running_qemu() {
    let machine = Machine::new();
    let mut service = machine.serve_with(&tdx_firmware());
    let qemu = machine.qemu_of(APPEND, &tdx_object(",,sept-ve-disable=on"), &[]);
    let evidence = machine.ask_td(&CHALLENGE).unwrap();
    let verified = machine.verify_td(&evidence, &CHALLENGE).unwrap();
    let expected = machine.registers(APPEND);
    assert!(verified.simulated && verified.replayed);
    assert_eq!(
        (verified.report_data, verified.mr_config_id),
        (CHALLENGE, machine::MR_CONFIG_ID)
    );
    assert_eq!(verified.mrtd, expected.mrtd_one_pass);
    let [rtmr0, rtmr1, rtmr2, rtmr3] = verified.rtmr;
    assert_eq!((rtmr1, rtmr2, rtmr3), (expected.rtmr1, expected.rtmr2, [0; 48]));
    let log = evidence.event_log.as_deref().unwrap();
    let log = EventLog::parse(log).unwrap();
    assert_eq!(log.replay()[0], rtmr0);
    assert!(log.events.iter().any(|event| event.rtmr == 0 && event.data == b"CFV"));

    let other = machine.ask_td(&[1; 64]).unwrap();
    let refused = machine.verify_td(&other, &CHALLENGE);
    assert!(
        matches!(refused, Err(TdxError::ReportData)),
        "each challenge has its quote"
    );

    drop(qemu);
    assert!(service.ended().success(), "the service ends with QEMU");
    let log = service.stderr();
    assert!(log.contains("guest measured") && log.contains("tdx"), "{log}");
}

/// RTMR1 and RTMR2 of a guest with this command line.
fn registers_of(machine: &Machine, append: &str) -> [[u8; 48]; 2] {
    let _service = machine.serve_with(&tdx_firmware());
    let _qemu = machine.qemu_of(append, &tdx_object(""), &[]);
    let evidence = machine.ask_td(&CHALLENGE).unwrap();
    let [_, rtmr1, rtmr2, _] = machine.verify_td(&evidence, &CHALLENGE).unwrap().rtmr;
    [rtmr1, rtmr2]
}

#[test]
fn t13_another_command_line_or_initrd_has_other_registers() {
    let machine = Machine::new();
    let original = machine.registers(APPEND);
    let [rtmr1, rtmr2] = registers_of(&machine, "console=ttyS0 quiet panic=-2");
    assert!(rtmr1 == original.rtmr1 && rtmr2 != original.rtmr2);

    let machine = Machine::new();
    let mut initrd = fs::read(machine.path("initrd")).unwrap();
    initrd[0] ^= 1;
    fs::write(machine.path("initrd"), initrd).unwrap();
    let [rtmr1, rtmr2] = registers_of(&machine, APPEND);
    assert!(rtmr1 == original.rtmr1 && rtmr2 != original.rtmr2);
}

#[test]
fn t22_a_guest_that_may_be_debugged_says_so() {
    let machine = Machine::new();
    let _service = machine.serve_with(&tdx_firmware());
    let _qemu = machine.qemu_of(APPEND, &tdx_object(",,attributes=1"), &[]);
    let refused = machine.verify_td(&machine.ask_td(&CHALLENGE).unwrap(), &CHALLENGE);
    assert!(matches!(refused, Err(TdxError::DebugAllowed { .. })), "{refused:?}");
}

#[test]
fn a_quote_counts_under_its_own_root_only() {
    let machine = Machine::new();
    let _service = machine.serve_with(&tdx_firmware());
    let _qemu = machine.qemu_of(APPEND, &tdx_object(""), &[]);
    let evidence = machine.ask_td(&CHALLENGE).unwrap();
    let stranger = Machine::new();
    assert!(stranger.verify_td(&evidence, &CHALLENGE).is_err());
}

#[test]
fn the_other_tees_firmware_has_no_registers() {
    let machine = Machine::new();
    let mut service = machine.serve_with(&firmware());
    let qemu = machine.qemu_of(APPEND, &tdx_object(""), &[]);
    assert_eq!(machine.ask_td(&CHALLENGE), None);
    drop(qemu);
    assert!(service.ended().success());
    let log = service.stderr();
    assert!(
        log.contains("ovmf-inteltdx"),
        "the firmware that is known is named: {log}"
    );
}
