//! MRTD against an answer of the independent tool `tinfoilsh/tdx-measure`; the rest against its specification.

use std::{env, fs, path::PathBuf};

use super::*;

fn tool(name: &str) -> PathBuf {
    let cache = env::var_os("CELLA_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache/cella"));
    let path = cache.join("tools").join(name);
    assert!(path.is_file(), "{} is missing: run make setup", path.display());
    path
}

fn firmware() -> PathBuf {
    tool("ovmf-tdx/usr/share/ovmf/OVMF.inteltdx.ms.fd")
}

#[test]
fn known_answers_in_both_page_orders() {
    let image = fs::read(firmware()).unwrap();
    let answer = |order| hex::encode(mrtd(&image, order).unwrap());
    assert_eq!(
        answer(PageOrder::OnePass),
        "a7a1f751abc454f9cbab198ca8d2edb2821935df525c74182b5e776cb0929e8c59aefecce725b0d08a5e9d3d3183bd08"
    );
    assert_eq!(
        answer(PageOrder::TwoPass),
        "b90b236113eb4c0d4df4ef590568c14e6028a3a31d7e8ac63dee9845df5008d3ebf82d4f5974e933798f65d7a279b9a9"
    );
}

#[test]
fn the_firmwares_words_are_those_of_a_real_log() {
    // Digests of events in the log of a real guest (google/go-eventlog, cos-113-intel-tdx.bin): RTMR1, which this computes too.
    for (text, digest) in [
        (
            &b"Calling EFI Application from Boot Option"[..],
            "77a0dab2312b4e1e57a84d865a21e5b2ee8d677a21012ada819d0a98988078d3d740f6346bfe0abaa938ca20439a8d71",
        ),
        (
            &b"Exit Boot Services Invocation"[..],
            "214b0bef1379756011344877743fdc2a5382bac6e70362d624ccf3f654407c1b4badf7d8f9295dd3dabdef65b27677e0",
        ),
        (
            &b"Exit Boot Services Returned with Success"[..],
            "0a2e01c85deae718a530ad8c6d20a84009babe6c8989269e950d8cf440c6e997695e64d455c4174a652cd080f6230b74",
        ),
        (
            &[0; 4][..],
            "394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0",
        ),
    ] {
        assert_eq!(hex::encode(sha384(text)), digest);
    }
}

/// Command line and initrd, spelled out.
#[test]
fn rtmr2_is_the_line_in_utf_16_and_the_initrd() {
    let line: Vec<u8> = "a initrd=initrd\0".bytes().flat_map(|byte| [byte, 0]).collect();
    let first = sha384(&[[0; 48], sha384(&line)].concat());
    let second = sha384(&[first, sha384(b"initrd")].concat());
    assert_eq!(extend_all(&rtmr2("a", b"initrd")), second);
    assert_ne!(rtmr2("a", b"initrd"), rtmr2("b", b"initrd"));
    assert_ne!(rtmr2("a", b"initrd"), rtmr2("a", b"initre"));
}

/// A PE32+ image in a bzImage's header, with one section.
fn kernel() -> Vec<u8> {
    let mut kernel = vec![0; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| kernel[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x3c, &0x40u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x46, &1u16.to_le_bytes());
    put(0x54, &(112u16 + 6 * 8).to_le_bytes());
    put(0x58, &0x20bu16.to_le_bytes());
    put(0x58 + 60, &0x200u32.to_le_bytes());
    put(0x58 + 64, &[0xcc; 4]);
    put(0x58 + 108, &6u32.to_le_bytes());
    let table = 0x58 + 112 + 6 * 8;
    put(table + 16, &0xc00u32.to_le_bytes());
    put(table + 20, &0x200u32.to_le_bytes());
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x236, &[0x7f]);
    put(0xe00, b"behind the section");
    kernel
}

#[test]
fn the_image_is_digested_without_checksum_and_certificate() {
    let kernel = kernel();
    let digest = authenticode::sha384(&kernel).unwrap();
    let (checksum, security) = (0x58 + 64, 0x58 + 112 + 32);
    let parts = [
        &kernel[..checksum],
        &kernel[checksum + 4..security],
        &kernel[security + 8..],
    ]
    .concat();
    assert_eq!(digest, sha384(&parts));
    let mut other = kernel.clone();
    other[checksum] ^= 1;
    assert_eq!(authenticode::sha384(&other).unwrap(), digest);
    for at in [0x10, 0x300, 0xe00, 0xfff] {
        let mut other = kernel.clone();
        other[at] ^= 1;
        assert_ne!(authenticode::sha384(&other).unwrap(), digest, "{at:#x}");
    }
    let mut signed = kernel.clone();
    signed[security] = 1;
    assert!(authenticode::sha384(&signed).is_err());
    for len in 0..kernel.len() {
        let _ = authenticode::sha384(&kernel[..len]);
    }
    for at in 0..0x200 {
        let mut flipped = kernel.clone();
        flipped[at] ^= 0x80;
        let _ = authenticode::sha384(&flipped);
    }
}

#[test]
fn registers_of_a_launch() {
    let dir = tempfile::tempdir().unwrap();
    let (kernel_path, initrd) = (dir.path().join("vmlinuz"), dir.path().join("initrd"));
    fs::write(&kernel_path, kernel()).unwrap();
    fs::write(&initrd, "initrd").unwrap();
    let firmware = firmware();
    let inputs = TdxLaunchInputs {
        firmware: &firmware,
        kernel: &kernel_path,
        initrd: &initrd,
        cmdline: "console=hvc0",
        memory_mib: 4096,
    };
    let registers = tdx_registers(&inputs).unwrap();
    assert_eq!(registers.rtmr2, extend_all(&rtmr2("console=hvc0", b"initrd")));
    let boot = tdx_boot(&inputs).unwrap();
    let of = |rtmr| {
        let events: Vec<_> = boot.events.iter().filter(|event| event.rtmr == rtmr).cloned().collect();
        (events.len(), extend_all(&events))
    };
    assert_eq!(boot.registers, registers);
    assert_eq!((of(1), of(2)), ((5, registers.rtmr1), (2, registers.rtmr2)));
    // The variables in the pinned image: as in the metadata, 0x84000 bytes from its beginning.
    let image = fs::read(&firmware).unwrap();
    assert_eq!((of(0).0, boot.events[0].digest), (2, sha384(&image[..0x84000])));
    let less = TdxLaunchInputs {
        memory_mib: 1024,
        ..inputs
    };
    let other = tdx_registers(&less).unwrap();
    assert_ne!(
        other.rtmr1, registers.rtmr1,
        "the initrd's address is in the kernel's header"
    );
    assert_eq!(
        (other.rtmr2, other.mrtd_one_pass),
        (registers.rtmr2, registers.mrtd_one_pass)
    );
    let blank = TdxLaunchInputs {
        cmdline: "ro ",
        ..inputs
    };
    assert!(matches!(tdx_registers(&blank), Err(MeasureError::CommandLine { .. })));
    let snp = tool("ovmf/usr/share/ovmf/OVMF.amdsev.fd");
    let error = tdx_registers(&TdxLaunchInputs {
        firmware: &snp,
        ..inputs
    })
    .unwrap_err();
    assert!(matches!(&error, MeasureError::UnknownFirmware { .. }), "{error:?}");
    assert!(error.to_string().contains("ovmf-inteltdx"), "{error}");
    fs::write(&kernel_path, "no kernel").unwrap();
    assert!(matches!(tdx_registers(&inputs), Err(MeasureError::Kernel { .. })));
}
