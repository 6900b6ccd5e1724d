//! `cellactl measure`: what the launch digest in a report must be, from the files of a guest image.

use std::fmt::Write as _;
use std::path::PathBuf;

use cella_attest::measure::{LaunchInputs, MeasureError, snp_launch_digest};

use crate::files::{self, FileError};

/// `cellactl measure`.
#[derive(Debug, clap::Args)]
pub(crate) struct MeasureArgs {
    /// Directory with the files vmlinuz, initrd and cmdline.
    #[arg(long, value_name = "DIR")]
    image_dir: PathBuf,
    /// The AmdSev firmware.
    #[arg(long, value_name = "FILE")]
    firmware: PathBuf,
    /// Number of vCPUs; several, joined by commas, give a digest each.
    #[arg(long, value_delimiter = ',', required = true, value_parser = clap::value_parser!(u32).range(1..=255))]
    vcpus: Vec<u32>,
    /// QEMU's name of the CPU model.
    #[arg(long, default_value = "EPYC-v4")]
    cpu: String,
    /// Platform. The simulated one measures as SEV-SNP does.
    #[arg(long, value_enum, default_value_t = Tee::Snp)]
    tee: Tee,
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
}

/// The digests, one for each number of vCPUs.
pub(crate) fn run(args: &MeasureArgs) -> Result<String, MeasureCommandError> {
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
        digests.push((*vcpus, hex::encode(digest)));
    }
    Ok(if args.json {
        json(args, cmdline, &digests)
    } else {
        text_of(&digests)
    })
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
        Tee::Snp => "snp",
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
