//! `cellactl measure`: what the launch digest in a report, or the registers in a quote, must be, from the files of a guest image.

use std::fmt::Write as _;
use std::path::PathBuf;

use cella_attest::measure::{
    LaunchInputs, MeasureError, TdxLaunchInputs, TdxRegisters, snp_launch_digest, tdx_registers,
};
use cella_attest::reference::Measured;
use cella_attest::td_launch_digest;

use crate::files::{self, FileError};
use crate::reference::{self, ReferenceCommandError};

/// `cellactl measure`.
#[derive(Debug, clap::Args)]
pub(crate) struct MeasureArgs {
    /// Directory with the files vmlinuz, initrd and cmdline.
    #[arg(long, value_name = "DIR")]
    image_dir: PathBuf,
    /// The AmdSev firmware; for --tee tdx the IntelTdx firmware.
    #[arg(long, value_name = "FILE")]
    firmware: PathBuf,
    /// Number of vCPUs, SEV-SNP only; several, joined by commas, give a digest each.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=255))]
    vcpus: Vec<u32>,
    /// Memory of the guest in MiB, TDX only: it decides where the initrd lies, which the kernel's measurement has in it. From 2816 on all are alike.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    memory: Option<u64>,
    /// QEMU's name of the CPU model.
    #[arg(long, default_value = "EPYC-v4")]
    cpu: String,
    /// Platform. The simulated one measures as SEV-SNP does.
    #[arg(long, value_enum, default_value_t = Tee::Snp)]
    tee: Tee,
    /// Add what is computed to this file of reference values, which is made if it is not there. Sign it with cellactl reference sign.
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tee {
    /// The simulated platform.
    Sim,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

/// The digests, one for each number of vCPUs, or the registers.
pub(crate) fn run(args: &MeasureArgs) -> Result<String, MeasureCommandError> {
    if args.tee == Tee::Tdx {
        return run_tdx(args);
    }
    if args.vcpus.is_empty() {
        return Err(MeasureCommandError::Missing { flag: "--vcpus" });
    }
    let text = files::read_text(&args.image_dir.join("cmdline"), MAX_CMDLINE)?;
    // The file is a line of text; QEMU gets the line.
    let cmdline = text.strip_suffix('\n').unwrap_or(&text);
    let mut digests = Vec::with_capacity(args.vcpus.len());
    for vcpus in &args.vcpus {
        let digest = snp_launch_digest(&LaunchInputs {
            firmware: &args.firmware,
            kernel: &args.image_dir.join("vmlinuz"),
            initrd: &args.image_dir.join("initrd"),
            cmdline,
            vcpus: *vcpus,
            cpu: &args.cpu,
        })?;
        digests.push((*vcpus, digest));
    }
    if let Some(path) = &args.reference {
        let values: Vec<_> = digests
            .iter()
            .map(|(_, digest)| (Measured::SnpLaunchDigest, *digest))
            .collect();
        reference::add(path, &values)?;
    }
    let digests: Vec<_> = digests
        .into_iter()
        .map(|(vcpus, digest)| (vcpus, hex::encode(digest)))
        .collect();
    Ok(if args.json {
        json(args, cmdline, &digests)
    } else {
        text_of(&digests)
    })
}

fn run_tdx(args: &MeasureArgs) -> Result<String, MeasureCommandError> {
    let memory_mib = args.memory.ok_or(MeasureCommandError::Missing { flag: "--memory" })?;
    let text = files::read_text(&args.image_dir.join("cmdline"), MAX_CMDLINE)?;
    let cmdline = text.strip_suffix('\n').unwrap_or(&text);
    let registers = tdx_registers(&TdxLaunchInputs {
        firmware: &args.firmware,
        kernel: &args.image_dir.join("vmlinuz"),
        initrd: &args.image_dir.join("initrd"),
        cmdline,
        memory_mib,
    })?;
    if let Some(path) = &args.reference {
        reference::add(
            path,
            &[
                (Measured::Mrtd, registers.mrtd_one_pass),
                (Measured::Mrtd, registers.mrtd_two_pass),
                (Measured::Rtmr1, registers.rtmr1),
                (Measured::Rtmr2, registers.rtmr2),
            ],
        )?;
    }
    Ok(registers_text(&registers, memory_mib, cmdline, args.json))
}

/// MRTD has two values: which one a host makes is a property of its QEMU and kernel, so a rule lists both. The launch digests are what owners approve.
fn registers_text(registers: &TdxRegisters, memory_mib: u64, cmdline: &str, json: bool) -> String {
    let mrtd = [registers.mrtd_one_pass, registers.mrtd_two_pass].map(hex::encode);
    let launch = [registers.mrtd_one_pass, registers.mrtd_two_pass]
        .map(|mrtd| hex::encode(td_launch_digest(&mrtd, [&registers.rtmr1, &registers.rtmr2, &[0; 48]])));
    let (rtmr1, rtmr2) = (hex::encode(registers.rtmr1), hex::encode(registers.rtmr2));
    if json {
        let value = serde_json::json!({
            "tee": "tdx", "memory_mib": memory_mib, "cmdline": cmdline, "mrtd": mrtd, "rtmr1": rtmr1, "rtmr2": rtmr2,
            "launch_digest": launch,
        });
        return format!("{value:#}\n");
    }
    let ([one, two], [launch, or]) = (mrtd, launch);
    format!("MRTD   {one}\n    or {two}\nRTMR1  {rtmr1}\nRTMR2  {rtmr2}\nlaunch {launch}\n    or {or}\n")
}

/// One digest alone is printed alone, so that a script can take it as it is.
fn text_of(digests: &[(u32, String)]) -> String {
    if let [(_, digest)] = digests {
        return format!("{digest}\n");
    }
    digests.iter().fold(String::new(), |mut out, (vcpus, digest)| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{vcpus:>3} vCPUs  {digest}");
        out
    })
}

fn json(args: &MeasureArgs, cmdline: &str, digests: &[(u32, String)]) -> String {
    let tee = match args.tee {
        Tee::Sim => "sim",
        Tee::Snp | Tee::Tdx => "snp",
    };
    let digests: Vec<_> = digests
        .iter()
        .map(|(vcpus, digest)| serde_json::json!({ "vcpus": vcpus, "launch_digest": digest }))
        .collect();
    let value = serde_json::json!({ "tee": tee, "cpu": args.cpu, "cmdline": cmdline, "digests": digests });
    format!("{value:#}\n")
}

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MeasureCommandError {
    /// The command line's file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The platform's measurement depends on it.
    #[error("{flag} is needed for this platform")]
    Missing {
        /// Which flag.
        flag: &'static str,
    },
    /// The file of reference values.
    #[error(transparent)]
    Reference(#[from] ReferenceCommandError),
    /// The computation.
    #[error(transparent)]
    Measure(#[from] MeasureError),
}

/// Linux cuts at 2048 bytes on x86.
const MAX_CMDLINE: u64 = 2049;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Measure {
        #[command(flatten)]
        args: MeasureArgs,
    }

    #[test]
    fn one_digest_stands_alone_and_several_are_labelled() {
        assert_eq!(text_of(&[(2, "ab".to_owned())]), "ab\n");
        assert_eq!(
            text_of(&[(1, "ab".to_owned()), (16, "cd".to_owned())]),
            "  1 vCPUs  ab\n 16 vCPUs  cd\n"
        );
    }

    #[test]
    fn registers_are_listed() {
        let registers = TdxRegisters {
            mrtd_one_pass: [1; 48],
            mrtd_two_pass: [2; 48],
            rtmr1: [3; 48],
            rtmr2: [4; 48],
        };
        let text = registers_text(&registers, 4096, "ro", false);
        let hex = |byte: &str| byte.repeat(48);
        let expected = format!(
            "MRTD   {}\n    or {}\nRTMR1  {}\nRTMR2  {}\nlaunch {}\n    or {}\n",
            hex("01"),
            hex("02"),
            hex("03"),
            hex("04"),
            hex::encode(td_launch_digest(&[1; 48], [&[3; 48], &[4; 48], &[0; 48]])),
            hex::encode(td_launch_digest(&[2; 48], [&[3; 48], &[4; 48], &[0; 48]])),
        );
        assert_eq!(text, expected);
        let json: serde_json::Value = serde_json::from_str(&registers_text(&registers, 4096, "ro", true)).unwrap();
        assert_eq!(
            (&json["mrtd"][1], &json["memory_mib"]),
            (&hex("02").into(), &4096.into())
        );
    }

    #[test]
    fn each_platform_needs_its_numbers() {
        for (tee, flag) in [("snp", "--vcpus"), ("sim", "--vcpus"), ("tdx", "--memory")] {
            let args = [
                "m",
                "--image-dir",
                "/nonexistent",
                "--firmware",
                "/nonexistent",
                "--tee",
                tee,
            ];
            let error = run(&Measure::try_parse_from(args).unwrap().args).unwrap_err();
            assert!(
                matches!(error, MeasureCommandError::Missing { flag: f } if f == flag),
                "{error}"
            );
        }
    }

    #[test]
    fn absent_files_and_odd_numbers_are_named() {
        let parse = |vcpus: &str| {
            Measure::try_parse_from([
                "m",
                "--image-dir",
                "/nonexistent",
                "--firmware",
                "/nonexistent",
                "--vcpus",
                vcpus,
            ])
        };
        assert!(parse("0").is_err());
        assert!(parse("1,256").is_err());
        let error = run(&parse("1,2").unwrap().args).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/cmdline"), "{error}");
    }
}
