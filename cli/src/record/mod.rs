//! `cellactl record` and `cellactl verify-record`: a guest's record of its boot or of a run, fetched from its agent and checked anywhere.
//!
//! The record is the guest's to make and anybody's to hand on: what makes it worth something is [`verify`], which believes
//! nobody but the vendor's root, or a simulated one that is named, and the launch digests that the checker has measured.

mod error;
mod run;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cella_attest::tdx::{Collateral, Roots, TdxOptions};
use cella_attest::{Anchors, VerifyOptions};
use cella_oci::Reference;
use cella_protos::agent::StatusRequest;
use cella_record::{
    BootRecord, Checked, Expectations, Hex, MAX_TEXT, RUN_MEDIA_TYPE, Refusal, RunRecord, SignedRecord, SignedRun,
    TdxTrust, Trust, check, check_run,
};
use serde_json::json;

pub(crate) use self::error::RecordError;
use crate::files;
use crate::status::Target;
use crate::store::{Access, Artifact};
use crate::units::grouped;

/// `cellactl record`.
#[derive(Debug, clap::Args)]
pub(crate) struct RecordArgs {
    #[command(flatten)]
    target: Target,
    /// The record of the latest run of the job whose output the policy keeps, in place of the boot's.
    #[arg(long)]
    run: bool,
    /// Write it to a file in place of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// `cellactl run-record`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunRecordArgs {
    /// Where it was pushed, beside the output: registry/repository:v2.run.
    reference: Reference,
    #[command(flatten)]
    access: Access,
    /// Write it to a file in place of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// `cellactl verify-record`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyRecordArgs {
    /// The record, of a boot or of a run, as `cellactl record` gave it.
    file: PathBuf,
    /// Launch digests that are expected, as `cellactl measure` prints them.
    #[arg(long, required = true, value_delimiter = ',', value_name = "HEX")]
    measurement: Vec<Hex<48>>,
    /// The initdata document that the guest must have been launched with: then images, models, keys and broker must be its policy's.
    #[arg(long, value_name = "FILE")]
    initdata: Option<PathBuf>,
    /// Digests of initdata documents, as `cellactl policy digest` prints them, one of which it must be.
    #[arg(long, value_delimiter = ',', value_name = "HEX")]
    policy_digest: Vec<Hex<32>>,
    /// Digests of models, of the manifest or of a file's plaintext, that must be there: sha256:…
    #[arg(long, value_delimiter = ',', value_name = "DIGEST")]
    model_digest: Vec<String>,
    /// Digests of what a run has pushed, of the manifest or of a file's plaintext, that must be there: sha256:…
    #[arg(long, value_delimiter = ',', value_name = "DIGEST")]
    output_digest: Vec<String>,
    /// Digests of images that must be there: sha256:…
    #[arg(long, value_delimiter = ',', value_name = "DIGEST")]
    image_digest: Vec<String>,
    /// Thumbprints, one of which must be of the key that signed the broker's statement.
    #[arg(long, value_delimiter = ',', value_name = "KID")]
    broker_key: Vec<String>,
    /// Not booted before this, in seconds since the Unix epoch.
    #[arg(long, value_name = "SECONDS")]
    not_before: Option<u64>,
    /// Not booted after this, in seconds since the Unix epoch.
    #[arg(long, value_name = "SECONDS")]
    not_after: Option<u64>,
    /// Development only: root certificate of a simulated platform, PEM. Its guests are not protected.
    #[arg(long, value_name = "PEM")]
    simulated_root: Option<PathBuf>,
    /// Intel's collateral for the platform, JSON; needed for TDX.
    #[arg(long, value_name = "FILE")]
    collateral: Option<PathBuf>,
    /// Accept Milan, whose attestation keys can be extracted in software.
    #[arg(long)]
    allow_milan: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// Fetches a record.
pub(crate) async fn fetch(args: &RecordArgs) -> Result<String, RecordError> {
    let request = StatusRequest {
        record: true,
        ..StatusRequest::new()
    };
    let answer = args.target.ask(request).await?;
    // Whatever a guest says ends on a terminal or in a file: nothing but a record does.
    let text = match args.run {
        _ if answer.record.is_empty() => return Err(RecordError::NotThere),
        true if answer.run_record.is_empty() => return Err(RecordError::NoRun),
        true => SignedRun::parse(&answer.run_record).map(|_| answer.run_record),
        false => SignedRecord::parse(&answer.record).map(|_| answer.record),
    };
    hand_over(text.map_err(RecordError::Parse)?, args.out.as_deref())
}

/// Fetches a run's record from a registry.
pub(crate) async fn pull(args: &RunRecordArgs) -> Result<String, RecordError> {
    let registry = args.access.registry(&args.reference.registry)?;
    let artifact = Artifact::pull(registry, &args.reference, "amd64").await?;
    let mut layers = artifact.manifest.layers.iter();
    let layer = layers.find(|layer| layer.media_type == RUN_MEDIA_TYPE);
    let text = artifact
        .store
        .bytes(layer.ok_or(RecordError::NoRun)?, MAX_TEXT as u64)
        .await?;
    SignedRun::parse(&text).map_err(RecordError::Parse)?;
    hand_over(text, args.out.as_deref())
}

fn hand_over(text: Vec<u8>, out: Option<&Path>) -> Result<String, RecordError> {
    let text = String::from_utf8(text).map_err(|_| RecordError::NotText)?;
    match out {
        None => Ok(text),
        Some(path) => {
            files::write(path, text.as_bytes())?;
            Ok(format!("{}: {} bytes\n", path.display(), grouped(text.len() as u64)))
        }
    }
}

/// Checks a record.
pub(crate) fn verify(args: &VerifyRecordArgs) -> Result<String, RecordError> {
    let text = files::read(&args.file, MAX_TEXT as u64)?;
    let given = match SignedRun::is_likely(&text) {
        true => Given::Run(Box::new(SignedRun::parse(&text).map_err(RecordError::Parse)?)),
        false if args.output_digest.is_empty() => {
            Given::Boot(Box::new(SignedRecord::parse(&text).map_err(RecordError::Parse)?))
        }
        false => return Err(RecordError::NotARun),
    };
    let initdata = args
        .initdata
        .as_deref()
        .map(|path| files::read(path, MAX_INPUT))
        .transpose()?;
    let expected = Expectations {
        measurements: args.measurement.clone(),
        policies: args.policy_digest.clone(),
        models: args.model_digest.clone(),
        images: args.image_digest.clone(),
        token_signers: args.broker_key.clone(),
        booted: (args.not_before.is_some() || args.not_after.is_some())
            .then(|| args.not_before.unwrap_or(0)..=args.not_after.unwrap_or(u64::MAX)),
        document: initdata.as_deref(),
        allow_simulated: args.simulated_root.is_some(),
    };
    let checked = judge(args, |trust| match &given {
        Given::Boot(boot) => check(boot, trust, &expected),
        Given::Run(run) => check_run(run, trust, &expected, &args.output_digest),
    })?;
    let (boot, run) = match &given {
        Given::Boot(boot) => (boot.as_ref(), None),
        Given::Run(run) => (&run.boot, Some(&run.run)),
    };
    Ok(if args.json {
        for_programs(&boot.record, run, &checked)
    } else {
        run.map(run::for_people).unwrap_or_default() + &for_people(&boot.record, &checked)
    })
}

/// A record of either kind.
enum Given {
    Boot(Box<SignedRecord>),
    Run(Box<SignedRun>),
}

fn judge(
    args: &VerifyRecordArgs,
    check: impl FnOnce(&Trust<'_>) -> Result<Checked, Refusal>,
) -> Result<Checked, RecordError> {
    let (mut snp_roots, mut tdx_roots) = (Anchors::amd(), Roots::intel());
    if let Some(path) = &args.simulated_root {
        let pem = files::read_text(path, MAX_INPUT)?;
        let failed = |source| RecordError::Root {
            path: path.clone(),
            source,
        };
        snp_roots = snp_roots.with_simulated_pem(&pem).map_err(failed)?;
        tdx_roots = tdx_roots.with_simulated_pem(&pem).map_err(failed)?;
    }
    let collateral =
        match &args.collateral {
            None => None,
            Some(path) => Some(Collateral::from_json(&files::read(path, MAX_INPUT)?).map_err(|source| {
                RecordError::Collateral {
                    path: path.clone(),
                    source,
                }
            })?),
        };
    // The desk's own clock: whoever checks trusts it.
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let snp = VerifyOptions::default().at(now).allow_milan(args.allow_milan);
    let options = TdxOptions::default();
    let trust = Trust {
        roots: &snp_roots,
        snp: &snp,
        tdx: collateral.as_ref().map(|collateral| TdxTrust {
            collateral,
            roots: &tdx_roots,
            options: &options,
            now,
        }),
    };
    check(&trust).map_err(|refusal| RecordError::Refused(Box::new(refusal)))
}

/// What is proved first, then what the guest says.
fn for_people(record: &BootRecord, checked: &Checked) -> String {
    let mut text = String::from("boot record: genuine, and as expected\n");
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<12} {value}\n"));
    let tee = checked.tee.to_string();
    line(
        "TEE",
        &if checked.simulated {
            tee + ", SIMULATED: nothing protects this guest"
        } else {
            tee
        },
    );
    line("measurement", &hex::encode(checked.measurement));
    line("TCB", &checked.tcb);
    line("policy", &record.initdata.sha256.to_string());
    if let Some(policy) = &record.policy {
        line("", &format!("{} revision {}", printable(&policy.name), policy.revision));
    }
    for image in &record.images {
        line(
            "image",
            &format!("{}: {}", printable(&image.container), printable(&image.image)),
        );
    }
    for model in &record.models {
        let (name, artifact) = (printable(&model.name), printable(&model.artifact));
        line("model", &format!("{name} version {}: {artifact}", model.version));
        if let Some(digest) = &model.digest {
            line("", &format!("plaintext {}", printable(digest)));
        }
        for file in &model.files {
            let (path, digest) = (printable(&file.path), printable(&file.digest));
            let (bytes, locked) = (grouped(file.bytes), grouped(file.locked_bytes));
            line("", &format!("{path}: {digest}, {bytes} bytes, {locked} locked"));
            if let Some(digest) = &file.blake3 {
                line("", &format!("{path}: {}", printable(digest)));
            }
        }
    }
    line("keys from", &printable(&record.broker.url));
    for released in &record.broker.keys {
        line(
            "",
            &printable(&format!("{} in session {}", released.key, released.session)),
        );
    }
    if let Some(token) = &record.broker.token {
        let signer = token.signer.as_deref().map_or("no pinned key".to_owned(), printable);
        line("token", &format!("{}, signed with {signer}", printable(&token.id)));
    }
    match record.time {
        Some(time) => line("booted", &format!("{} (Unix time, by the broker's clock)", time.booted)),
        None => line("booted", "at a time that the broker has not told"),
    }
    text
}

fn for_programs(record: &BootRecord, run: Option<&RunRecord>, checked: &Checked) -> String {
    let mut value = json!({
        "verified": true, "tee": checked.tee, "simulated": checked.simulated,
        "measurement": hex::encode(checked.measurement), "tcb": checked.tcb, "record": record,
    });
    if let (Some(run), Some(members)) = (run, value.as_object_mut()) {
        members.insert("run".to_owned(), json!(run));
    }
    format!("{value:#}\n")
}

/// A guest's text, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
        .collect()
}

/// Documents and collateral.
const MAX_INPUT: u64 = 1 << 20;

#[cfg(test)]
mod tests;
