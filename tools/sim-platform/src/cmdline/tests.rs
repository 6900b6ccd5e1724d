//! Command lines as the shim writes them, and as somebody would who wants another guest measured than runs.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

const HOST_DATA: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const OBJECT: &str = "sev-snp-guest,id=tee0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on,host-data=";

fn object() -> String {
    format!("{OBJECT}{HOST_DATA}")
}

/// A whole command line; each pair replaces the value of an option, or takes the option away.
fn arguments(changes: &[(&str, Option<&str>)]) -> Vec<String> {
    let object = object();
    let options = [
        ("-name", Some("sandbox-1")),
        (
            "-machine",
            Some("q35,accel=tcg,mem-merge=off,dump-guest-core=off,memory-backend=mem0"),
        ),
        ("-nodefaults", None),
        ("-no-user-config", None),
        ("-nographic", None),
        ("-m", Some("512M")),
        ("-smp", Some("2")),
        ("-kernel", Some("/img/vmlinuz")),
        ("-initrd", Some("/img/initrd")),
        ("-append", Some("console=ttyS0 quiet")),
        ("-object", Some("memory-backend-memfd,id=mem0,size=512M,share=on")),
        ("-object", Some(object.as_str())),
        (
            "-device",
            Some("virtio-blk-pci,drive=d0,serial=initdata,disable-legacy=on"),
        ),
        ("-pidfile", Some("/run/qemu.pid")),
    ];
    let mut out = vec!["/usr/bin/qemu-system-x86_64".to_owned()];
    for (name, value) in options {
        let snp_object = name == "-object" && value != Some(object.as_str());
        let change = changes.iter().find(|(changed, _)| *changed == name && !snp_object);
        match (change, value) {
            (Some((_, None)), _) => {}
            (Some((_, Some(value))), _) => out.extend([name.to_owned(), (*value).to_owned()]),
            (None, Some(value)) => out.extend([name.to_owned(), value.to_owned()]),
            (None, None) => out.push(name.to_owned()),
        }
    }
    out
}

fn parse(arguments: &[String]) -> Result<Launch, CmdlineError> {
    let bytes: Vec<u8> = arguments
        .iter()
        .flat_map(|argument| [argument.as_bytes(), b"\0"].concat())
        .collect();
    Launch::parse(&bytes)
}

/// The good command line with arguments behind it.
fn with(extra: &[&str]) -> Result<Launch, CmdlineError> {
    let mut all = arguments(&[]);
    all.extend(extra.iter().map(|argument| (*argument).to_owned()));
    parse(&all)
}

#[test]
fn a_launch_is_read() {
    let launch = parse(&arguments(&[])).unwrap();
    assert_eq!(launch.kernel, PathBuf::from("/img/vmlinuz"));
    assert_eq!(launch.initrd, PathBuf::from("/img/initrd"));
    assert_eq!(launch.append, "console=ttyS0 quiet");
    assert_eq!((launch.vcpus, launch.memory_mib), (2, Some(512)));
    assert_eq!(launch.guest, snp(0x30000, [7; 32]));
}

fn snp(policy: u64, host_data: [u8; 32]) -> GuestObject {
    GuestObject::Snp { policy, host_data }
}

/// The lines that the shim's own tests hold it to, for simulated guests.
#[test]
fn the_shims_lines_are_read() {
    let snp_object = "sev-snp-guest,id=tee0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on,\
        host-data=BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let id = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH";
    let tdx_object = format!("authz-simple,id=tee0,identity=tdx-guest,,sept-ve-disable=on,,mrconfigid={id}");
    let tdx = GuestObject::Tdx {
        attributes: 1 << 28,
        mr_config_id: [7; 48],
    };
    for (object, guest) in [(snp_object, snp(0x30000, [7; 32])), (&tdx_object, tdx)] {
        assert_eq!(parse(&shims_line(object)), Ok(shims_launch(guest)));
    }
}

fn shims_line(object: &str) -> Vec<String> {
    let line = "qemu-system-x86_64 -name guest=cella-d1 -nodefaults -no-user-config -no-reboot -display none -vga none \
        -L /q/seabios -L /q/qemu \
        -machine q35,smm=off,usb=off,vmport=off,dump-guest-core=off,mem-merge=off,memory-backend=mem0 \
        -accel tcg -cpu max,-erms,-fsrm,-avx2,-vaes -smp 1 \
        -m 1024M -object memory-backend-memfd,id=mem0,size=1024M,share=on \
        -chardev socket,id=vsock0,path=/r/vhost.sock -device vhost-user-vsock-pci,chardev=vsock0 \
        -netdev user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:18080-10.0.2.15:8080 \
        -device virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01,disable-legacy=on,romfile= \
        -blockdev file,node-name=initdata0,filename=/r/initdata.img,read-only=on \
        -device virtio-blk-pci,drive=initdata0,serial=initdata,disable-legacy=on \
        -chardev socket,id=console0,path=/r/console.sock,server=off -serial chardev:console0 \
        -qmp unix:/r/qmp.sock,server=off -pidfile /r/qemu.pid \
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
        -object OBJECT -kernel /g/vmlinuz -initrd /g/initrd -append";
    let mut arguments: Vec<String> = line.split(' ').map(|word| word.replace("OBJECT", object)).collect();
    arguments.push("console=ttyS0 quiet".to_owned());
    arguments
}

fn shims_launch(guest: GuestObject) -> Launch {
    Launch {
        kernel: "/g/vmlinuz".into(),
        initrd: "/g/initrd".into(),
        append: "console=ttyS0 quiet".to_owned(),
        vcpus: 1,
        memory_mib: Some(1024),
        guest,
        firmware_boot: None,
    }
}

#[test]
fn two_dashes_are_one() {
    let doubled: Vec<String> = arguments(&[])
        .iter()
        .map(|argument| argument.replacen("-kernel", "--kernel", 1))
        .collect();
    assert_eq!(parse(&doubled), parse(&arguments(&[])));
}

#[test]
fn values_that_look_like_options_are_values() {
    let launch = parse(&arguments(&[
        ("-name", Some("-kernel")),
        ("-append", Some("-initrd /other")),
    ]))
    .unwrap();
    assert_eq!(
        (launch.kernel, launch.append.as_str()),
        ("/img/vmlinuz".into(), "-initrd /other")
    );
}

#[test]
fn the_command_line_is_kept_byte_for_byte() {
    for append in ["", " a", "a ", "a  b", "a,b=c", "\u{e9}"] {
        assert_eq!(parse(&arguments(&[("-append", Some(append))])).unwrap().append, append);
    }
}

#[test]
fn t13_nothing_may_stand_twice() {
    for (name, value, option) in [
        ("-kernel", "/other", "-kernel"),
        ("--kernel", "/other", "-kernel"),
        ("-initrd", "/other", "-initrd"),
        ("-append", "init=/bin/sh", "-append"),
        ("-smp", "2", "-smp"),
        ("-object", object().as_str(), GUEST),
        ("-object", "authz-simple,id=a,identity=tdx-guest", GUEST),
        ("-m", "512M", "-m"),
    ] {
        assert_eq!(with(&[name, value]), Err(CmdlineError::Duplicate { option }));
    }
}

#[test]
fn nothing_may_be_missing() {
    for (name, option) in [
        ("-kernel", "-kernel"),
        ("-initrd", "-initrd"),
        ("-append", "-append"),
        ("-smp", "-smp"),
        ("-object", GUEST),
    ] {
        assert_eq!(
            parse(&arguments(&[(name, None)])),
            Err(CmdlineError::Missing { option })
        );
    }
    assert_eq!(
        with(&["-uuid"]),
        Err(CmdlineError::NoValue {
            option: "-uuid".to_owned()
        })
    );
    assert_eq!(Launch::parse(b""), Err(CmdlineError::Empty));
    assert_eq!(Launch::parse(b"qemu"), Err(CmdlineError::Empty));
    assert_eq!(Launch::parse(b"qemu\0"), Err(CmdlineError::Missing { option: GUEST }));
}

#[test]
fn what_launches_something_else_is_refused() {
    let refused: [&[&str]; 15] = [
        &["-pflash", "/other.fd"],
        &["-readconfig", "/file"],
        &["-set", "machine.kernel=/other"],
        &["-loadvm", "x"],
        &["-incoming", "defer"],
        &["-fw_cfg", "name=opt/x,string=y"],
        &["-gdb", "tcp::1"],
        &["-s"],
        &["-machine", "kernel=/other"],
        &["-M", "q35,smp.cpus=4"],
        &["-machine", "microvm"],
        &["-device", "loader,file=/other,addr=0x810c00"],
        &["-device", "loader,file=/other,addr=0x810c00,force-raw=on,cpu-num=0"],
        &["-device", "loader,file=/other,addr=8457216,force-raw=on"],
        &["-device", "guest-loader,addr=0x810c00,kernel=/other"],
    ];
    for extra in refused {
        assert!(
            matches!(with(extra), Err(CmdlineError::Refused { .. })),
            "{extra:?}: {:?}",
            with(extra)
        );
    }
    let json = r#"{"driver":"loader","file":"/other"}"#;
    assert!(matches!(with(&["-device", json]), Err(CmdlineError::Refused { .. })));
    assert!(with(&["-machine", "microvm,auto-kernel-cmdline=off"]).is_ok());
    assert!(with(&["-device", r#"{"driver":"virtio-net-pci","netdev":"n"}"#]).is_ok());
}

#[test]
fn the_firmware_boots_with_its_table_or_not_at_all() {
    let table = "loader,file=/r/hashes.bin,addr=0x810c00,force-raw=on";
    let launch = with(&["-bios", "/o/OVMF.fd", "-device", table]).unwrap();
    let boot = launch.firmware_boot.unwrap();
    assert_eq!(
        (boot.firmware, boot.table.file),
        ("/o/OVMF.fd".into(), "/r/hashes.bin".into())
    );
    assert_eq!(boot.table.gpa, 0x81_0c00);
    for alone in [["-bios", "/o/OVMF.fd"], ["-device", table]] {
        assert!(matches!(with(&alone), Err(CmdlineError::Missing { .. })), "{alone:?}");
    }
    let option = "-device loader";
    let twice = with(&["-bios", "/o/OVMF.fd", "-device", table, "-device", table]);
    assert_eq!(twice, Err(CmdlineError::Duplicate { option }));
}

#[test]
fn what_cannot_be_placed_is_refused() {
    let stray = |argument: &str| {
        Err(CmdlineError::Stray {
            argument: argument.to_owned(),
        })
    };
    assert_eq!(with(&["/disk.img"]), stray("/disk.img"));
    assert_eq!(with(&["-nodefaults", "/disk.img"]), stray("/disk.img"));
    assert_eq!(with(&[""]), stray(""));
    assert_eq!(with(&["-"]), stray("-"));
    assert_eq!(
        with(&["-new-flag", "-kernel", "/other"]),
        stray("/other"),
        "an unknown flag hides no kernel"
    );
    let mut bytes = arguments(&[]).join("\0").into_bytes();
    bytes.extend(b"\0-\xff\0");
    assert_eq!(Launch::parse(&bytes), Err(CmdlineError::NotUtf8));
}

#[test]
fn vcpus_are_counted() {
    let vcpus = |text: &str| parse(&arguments(&[("-smp", Some(text))])).map(|launch| launch.vcpus);
    assert_eq!(vcpus("1"), Ok(1));
    assert_eq!(vcpus("cpus=4"), Ok(4));
    assert_eq!(vcpus("4,sockets=1,cores=2,threads=2,maxcpus=4"), Ok(4));
    for text in [
        "",
        "0",
        "01",
        "+1",
        "0x2",
        "2,maxcpus=4",
        "sockets=2",
        "2,cpus=4",
        "2,x=1",
        "2,",
        "4294967296",
    ] {
        assert!(
            matches!(vcpus(text), Err(CmdlineError::Value { option: "-smp", .. })),
            "{text}"
        );
    }
}

#[test]
fn the_guest_object_is_read_exactly() {
    let parse = |text: &str| parse(&arguments(&[("-object", Some(text))]));
    let launch = parse("sev-snp-guest,id=a,kernel-hashes=on").unwrap();
    assert_eq!(launch.guest, snp(0x30000, [0; 32]));
    let launch = parse("qom-type=sev-snp-guest,id=a,kernel-hashes=on,policy=720896").unwrap();
    assert_eq!(
        launch.guest,
        snp(0xb0000, [0; 32]),
        "the debug bit is passed on for the verifier to refuse"
    );
    for text in [
        "sev-snp-guest,id=a",
        "sev-snp-guest,id=a,kernel-hashes=off",
        "sev-snp-guest,id=a,kernel-hashes=on,kernel-hashes=on",
        "sev-snp-guest,id=a,kernel-hashes=on,id-block=AAAA",
        "sev-snp-guest,id=a,kernel-hashes=on,policy=",
        "sev-snp-guest,id=a,kernel-hashes=on,policy=0x",
        "sev-snp-guest,id=a,kernel-hashes=on,policy=0x+3",
        "sev-snp-guest,id=a,kernel-hashes=on,policy=030000",
        "sev-snp-guest,id=a,kernel-hashes=on,host-data=",
        "sev-snp-guest,id=a,kernel-hashes=on,host-data=BwcH",
        "sev-snp-guest,id=a,kernel-hashes=on,vcek-disabled=on",
        r#"{"qom-type":"sev-snp-guest","id":"a","kernel-hashes":true}"#,
        "{",
    ] {
        assert!(
            matches!(parse(text), Err(CmdlineError::Value { .. })),
            "{text}: {:?}",
            parse(text)
        );
    }
    let other = CmdlineError::Missing { option: GUEST };
    assert_eq!(parse("rng-random,id=a"), Err(other.clone()));
    assert_eq!(parse(r#"{"qom-type":"iommufd","id":"a"}"#), Err(other));
}

#[test]
fn the_object_in_the_place_of_tdx_guest_is_read_exactly() {
    let parse = |identity: &str| {
        let object = format!("authz-simple,id=a,identity={}", identity.replace(',', ",,"));
        parse(&arguments(&[("-object", Some(&object))])).map(|launch| launch.guest)
    };
    let tdx = |attributes, mr_config_id| {
        Ok(GuestObject::Tdx {
            attributes,
            mr_config_id,
        })
    };
    let id = STANDARD.encode([7; 48]);
    assert_eq!(parse("tdx-guest"), tdx(1 << 28, [0; 48]));
    assert_eq!(parse(&format!("tdx-guest,mrconfigid={id}")), tdx(1 << 28, [7; 48]));
    assert_eq!(
        parse("tdx-guest,attributes=1,sept-ve-disable=off"),
        tdx(1, [0; 48]),
        "debugging is passed on for the verifier to refuse"
    );
    for identity in [
        "tdx-guests",
        "tdx-guest,",
        "tdx-guest,debug=on",
        "tdx-guest,mrowner=AAAA",
        "tdx-guest,attributes=",
        "tdx-guest,attributes=-1",
        "tdx-guest,attributes=0x10000000000000000",
        "tdx-guest,sept-ve-disable=true",
        "tdx-guest,mrconfigid=",
        "tdx-guest,mrconfigid=BwcH",
        "tdx-guest,mrconfigid=AAAA,mrconfigid=AAAA",
    ] {
        assert!(matches!(parse(identity), Err(CmdlineError::Value { .. })), "{identity}");
    }
    // Another's object, and none in this place.
    assert_eq!(parse("CN=somebody"), Err(CmdlineError::Missing { option: GUEST }));
    // The real object says nothing to anybody where there is no TDX.
    for object in [
        "tdx-guest,id=a",
        r#"{"qom-type":"tdx-guest","id":"a"}"#,
        r#"{"qom-type":"authz-simple","id":"a","identity":"tdx-guest"}"#,
    ] {
        assert!(
            matches!(with(&["-object", object]), Err(CmdlineError::Value { .. })),
            "{object}"
        );
    }
}

#[test]
fn a_simulated_tdx_guest_boots_no_firmware() {
    let mut line = shims_line("authz-simple,id=tee0,identity=tdx-guest");
    let table = "loader,file=/r/hashes.bin,addr=0x810c00,force-raw=on";
    line.extend(["-bios", "/o/OVMF.fd", "-device", table].map(str::to_owned));
    assert!(matches!(parse(&line), Err(CmdlineError::Refused { option, .. }) if option == "-bios"));
}

#[test]
fn memory_is_counted() {
    let memory = |text: &str| parse(&arguments(&[("-m", Some(text))])).map(|launch| launch.memory_mib);
    for (text, mib) in [("1024M", 1024), ("1024", 1024), ("size=2g", 2048), ("1m", 1)] {
        assert_eq!(memory(text), Ok(Some(mib)), "{text}");
    }
    // SNP's measurement does not have it: the host may add memory, and the guest has no code to take it.
    for text in ["1024M,slots=2", "1024M,maxmem=2G"] {
        assert_eq!(memory(text), Ok(None), "{text}");
    }
    for text in [
        "",
        "0",
        "01",
        "1.5G",
        "1T",
        "1k",
        "0x400",
        "+1",
        "1024M,lots=2",
        "slots=2,maxmem=2G",
        "M",
        "99999999999",
    ] {
        assert!(
            matches!(memory(text), Err(CmdlineError::Value { option: "-m", .. })),
            "{text}"
        );
    }
}

#[test]
fn truncated_anywhere_is_an_error_or_another_launch() {
    let whole = [arguments(&[]).join("\0").into_bytes(), vec![0]].concat();
    let good = Launch::parse(&whole).unwrap();
    for len in 0..whole.len() {
        let cut = Launch::parse(&whole[..len]);
        // Only what stands behind the last option that matters can be missed.
        assert!(cut.is_err() || cut == Ok(good.clone()), "{len} bytes: {cut:?}");
    }
}
