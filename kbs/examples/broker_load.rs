//! How fast a broker is, seen from its guests. Prints one line of JSON.
//!
//! `broker_load PROGRAM [SECONDS [postgres]]`: makes a broker in a temporary folder, starts PROGRAM (`cella-kbs`) on it, with the
//! embedded database or with a PostgreSQL server of its own on a Unix socket, and measures:
//!
//! - `rcar_1_key`, `rcar_10_keys`: from the connection to the last key, one guest after the other, each with a TLS connection and
//!   a handshake of its own; median and p99 in milliseconds. The guest's own work (a fresh key, a report signed by the
//!   simulated platform) is in it; `evidence_ms` says how long a report takes alone;
//! - `load_64`: handshakes (challenge and attestation) of 64 clients at once for SECONDS (default 10) on connections that stay;
//!   how many a second, and how long one takes, median and p99;
//! - `memory_mib`: the program's largest resident memory.
//!
//! Clients, broker and PostgreSQL share the machine. What each answer says is checked.
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cella_attest::sim::{Authority, Chip, ChipSpec, Claims};
use cella_attest::trustee;
use cella_http::{Client, ClientConfig, TlsRoots};
use cella_kbs::init::{InitOptions, init};
use cella_kbs_client::KbsClient;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::task::JoinSet;

#[path = "../tests/broker/postgres.rs"]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the fixture of the tests: a server that does not start ends the benchmark"
)]
mod postgres;

use postgres::Postgres;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const INITDATA: &str = "algorithm = \"sha256\"\nversion = \"0.1.0\"\n[data]\n";
const MEASUREMENT: [u8; 48] = [0x5a; 48];
const KEY: &[u8] = b"thirty-two bytes of a model key.";
const KEYS: usize = 10;
const ROUNDS: usize = 200;
const CLIENTS: usize = 64;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: broker_load PROGRAM [SECONDS [postgres]]";
    let program = arguments.next().ok_or(usage)?;
    let seconds = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let postgres = match arguments.next().as_deref() {
        None => None,
        Some("postgres") => Some(Postgres::start()),
        Some(_) => return Err(usage.into()),
    };
    let work = run(Path::new(&program), Duration::from_secs(seconds), postgres.as_ref());
    tokio::runtime::Runtime::new()?.block_on(work)
}

async fn run(program: &Path, span: Duration, postgres: Option<&Postgres>) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let chip = Arc::new(Authority::generate()?.chip(&ChipSpec::random())?);
    let broker = Broker::start(program, dir.path(), &chip, postgres).await?;
    broker.store().await?;

    let evidence = times(ROUNDS, async || report(&chip, [1; 64]).map(drop)).await?;
    let one = times(ROUNDS, async || broker.fetch(&chip, 1).await).await?;
    let ten = times(ROUNDS, async || broker.fetch(&chip, KEYS).await).await?;
    let load = broker.load(&chip, span).await?;
    let answer = json!({
        "rcar_1_key_ms": one.json(),
        "rcar_10_keys_ms": ten.json(),
        "evidence_ms": evidence.json(),
        "load_64": {"attestations_per_s": (load.0.len() as f64 / load.1.as_secs_f64()).round(), "ms": load.0.json()},
        "memory_mib": broker.memory_mib()?,
    });
    println!("{answer}");
    Ok(())
}

/// A running broker. It ends with this.
struct Broker {
    child: Child,
    folder: PathBuf,
    address: String,
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker {
    async fn start(program: &Path, dir: &Path, chip: &Chip, postgres: Option<&Postgres>) -> Outcome<Self> {
        let root = dir.join("ark.pem");
        std::fs::write(&root, chip.ark_pem()?)?;
        let config = init(&InitOptions {
            dir: dir.join("kbs"),
            names: vec!["127.0.0.1".to_owned()],
            listen: "127.0.0.1:0".parse()?,
            simulated_root: Some(root),
            tdx_collateral: None,
            simulated_tdx_root: None,
        })?;
        let limits = "\n[limits]\nsessions = 65536\nrequests-per-second = 100000\nconnections = 512\nconnections-per-source = 512\n";
        let mut text = std::fs::read_to_string(&config)? + limits;
        if let Some(postgres) = postgres {
            text += "[postgres]\nconnection = \"connection\"\nreplica = \"bench\"\n";
            let path = dir.join("kbs/connection");
            std::fs::copy(dir.join("kbs/storage.key"), &path)?; // for its mode
            std::fs::write(&path, postgres.connection())?;
        }
        std::fs::write(&config, text)?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let folder = dir.join("kbs");
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let address = loop {
            tick.tick().await;
            match std::fs::read_to_string(folder.join("state/address")) {
                Ok(address) => break address.trim().to_owned(),
                Err(_) if Instant::now() < deadline && child.try_wait()?.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        };
        Ok(Self { child, folder, address })
    }

    fn client(&self) -> Outcome<Client> {
        let roots = TlsRoots::from_pem(&std::fs::read_to_string(self.folder.join("ca.pem"))?)?;
        let origin = format!("https://{}", self.address).parse()?;
        Ok(Client::new(origin, Some(roots), ClientConfig::default())?)
    }

    /// Keys, each with a rule.
    async fn store(&self) -> Outcome<()> {
        let der = PrivatePkcs8KeyDer::from_pem_file(self.folder.join("admin.key"))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| "the admin key")?;
        let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let claims = json!({"aud": "cella-kbs", "sub": "bench", "iat": now, "exp": now + 120});
        let input = format!("{}.{}", part(json!({"alg": "EdDSA", "typ": "JWT"})), part(claims));
        let token = format!("Bearer {input}.{}", URL_SAFE_NO_PAD.encode(pair.sign(input.as_bytes())));
        let digest = cella_policy::initdata::digests(INITDATA.as_bytes()).sha256;
        let rule = json!({
            "launch-digests": [hex::encode(MEASUREMENT)], "policy-digests": [hex::encode(digest)], "allow-simulated": true,
        });
        let client = self.client()?;
        for key in 0..KEYS {
            for (path, body) in [
                ("resource", KEY.to_vec()),
                ("cella-rule", rule.to_string().into_bytes()),
            ] {
                let mut headers = HeaderMap::new();
                headers.insert(AUTHORIZATION, HeaderValue::from_str(&token)?);
                let path = format!("/kbs/v0/{path}/bench/key/{key}");
                let response = client.send(Method::POST, &path, headers, Bytes::from(body)).await?;
                if response.status != StatusCode::OK {
                    return Err(format!("{path}: {}", response.status).into());
                }
                response.bytes(1 << 16).await?;
            }
        }
        Ok(())
    }

    /// A guest from its connection to its last key.
    async fn fetch(&self, chip: &Arc<Chip>, keys: usize) -> Outcome<()> {
        let mut client = KbsClient::new(self.client()?, "snp");
        let mut session = client.attest(INITDATA, async |data| report(chip, data)).await?;
        for key in 0..keys {
            if session.resource(&format!("bench/key/{key}")).await?.as_slice() != KEY {
                return Err("another key".into());
            }
        }
        Ok(())
    }

    /// Handshakes of many clients at once: how long each took, and all together.
    async fn load(&self, chip: &Arc<Chip>, span: Duration) -> Outcome<(Times, Duration)> {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..CLIENTS {
            let (mut client, chip) = (KbsClient::new(self.client()?, "snp"), chip.clone());
            tasks.spawn(async move {
                let mut took = Vec::new();
                while started.elapsed() < span {
                    let begun = Instant::now();
                    client.attest(INITDATA, async |data| report(&chip, data)).await?;
                    took.push(begun.elapsed());
                }
                Outcome::Ok(took)
            });
        }
        let mut all = Vec::new();
        while let Some(took) = tasks.join_next().await {
            all.extend(took??);
        }
        Ok((Times::new(all), started.elapsed()))
    }

    fn memory_mib(&self) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line
            .and_then(|line| line.split_whitespace().next())
            .ok_or("no VmHWM")?
            .parse()?;
        Ok(kib / 1024)
    }
}

fn report(chip: &Chip, report_data: [u8; 64]) -> Outcome<Value> {
    let digest = cella_policy::initdata::digests(INITDATA.as_bytes()).sha256;
    let evidence = chip.issue(&Claims::new(report_data, MEASUREMENT, digest))?;
    Ok(trustee::to_json(&evidence)?)
}

async fn times(rounds: usize, mut work: impl AsyncFnMut() -> Outcome<()>) -> Outcome<Times> {
    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        work().await?;
        took.push(begun.elapsed());
    }
    Ok(Times::new(took))
}

/// In order.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut took: Vec<Duration>) -> Self {
        took.sort();
        Self(took)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn json(&self) -> Value {
        let at = |hundredths: usize| {
            let index = (self.0.len().saturating_sub(1)) * hundredths / 100;
            let took = self.0.get(index).copied().unwrap_or_default();
            (took.as_secs_f64() * 1e5).round() / 100.0
        };
        json!({"median": at(50), "p99": at(99), "n": self.0.len()})
    }
}
