//! How long a verifier takes for one guest, on one core. Prints one line of JSON.
//!
//! `verify_cost VECTORS [MS]`: the folder that `tests/fetch-vectors.sh` fills, and how long to measure each, default 1000 ms. Figures are medians
//! in µs over all verifications in that time, on the thread that calls:
//!
//! - `snp`: a real Milan report with its chain of two RSA-4096 certificates under AMD's root, dates included.
//! - `tdx`: a real version 4 quote under Intel's root with TCB info, identity and both revocation lists.
//! - `tdx_log`: reading and replaying a real event log of 43 events.
use std::{
    error::Error,
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use cella_attest::{
    Anchors, Evidence, Expected, VerifyOptions,
    snp::Report,
    tdx::{Collateral, EventLog, Quote, Roots, TdxEvidence, TdxExpected, TdxOptions, verify},
    verify_with,
};
use x509_cert::{Certificate, der::Encode};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let vectors = arguments.next().ok_or("usage: verify_cost VECTORS [MS]")?;
    let vectors = Path::new(&vectors);
    let budget = Duration::from_millis(arguments.next().map_or(Ok(1000), |text| text.parse())?);
    let (snp, tdx, log) = (snp(vectors, budget)?, tdx(vectors, budget)?, log(vectors, budget)?);
    let report = serde_json::json!({ "unit": "us", "snp": snp, "tdx": tdx, "tdx_log": log });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

fn snp(vectors: &Path, budget: Duration) -> Outcome<f64> {
    let mut chain = vec![fs::read(vectors.join("milan-vcek.der"))?];
    for certificate in Certificate::load_pem_chain(&fs::read(vectors.join("ask-ark-milan.pem"))?)? {
        chain.push(certificate.to_der()?);
    }
    let report = hex::decode(fs::read(vectors.join("milan.hex"))?)?;
    let report_data = Report::parse(&report)?.report_data;
    let evidence = Evidence { report, chain };
    let expected = Expected {
        report_data: &report_data,
        host_data: None,
        vmpl: 0,
    };
    // 2024: within the validity of this chip's certificate.
    let now = Duration::from_secs(1_704_067_200);
    let options = VerifyOptions::default().allow_milan(true).min_version(2).at(now);
    let anchors = Anchors::amd();
    measure(budget, || {
        Ok(verify_with(&evidence, &anchors, &expected, &options).map(drop)?)
    })
}

fn tdx(vectors: &Path, budget: Duration) -> Outcome<f64> {
    let quote = fs::read(vectors.join("tdx-v4.bin"))?;
    let collateral = Collateral::from_json(&fs::read(vectors.join("tdx-v4.json"))?)?;
    let report_data = Quote::parse(&quote)?.report.report_data;
    let evidence = TdxEvidence {
        quote: &quote,
        event_log: None,
    };
    let expected = TdxExpected {
        report_data: &report_data,
        mr_config_id: None,
    };
    let (roots, options) = (Roots::intel(), TdxOptions::default());
    // 2025-06-20: within the collateral's window.
    let now = Duration::from_secs(1_750_400_000);
    measure(budget, || {
        Ok(verify(&evidence, &collateral, &roots, &expected, &options, now).map(drop)?)
    })
}

fn log(vectors: &Path, budget: Duration) -> Outcome<f64> {
    let log = fs::read(vectors.join("ccel-cos.bin"))?;
    measure(budget, || {
        let replayed = EventLog::parse(&log)?.replay();
        if std::hint::black_box(replayed) == [[0; 48]; 4] {
            return Err("the log is empty".into());
        }
        Ok(())
    })
}

/// Median time of one call, in µs.
fn measure(budget: Duration, mut call: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < budget || took.len() < 3 {
        let started = Instant::now();
        call()?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let median = took.get(took.len() / 2).ok_or("nothing was measured")?;
    Ok((median.as_secs_f64() * 1e7).round() / 10.0)
}
