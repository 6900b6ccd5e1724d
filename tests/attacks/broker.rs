//! The stack's key broker as anybody on the network reaches it, and guests of the simulated platform without a machine around them: what
//! a hostile host can make of reports, nonces, keys and documents.
use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cella_attest::{
    Evidence,
    sim::{Chip, Claims},
    trustee,
};
use cella_http::{Client, ClientConfig, TlsRoots};
use cella_kbs_client::{TeeKey, wire};
use cella_policy::initdata::{self, Algorithm};
use cella_tests::{Fixture, Stack};
use http::{
    HeaderMap, HeaderValue, Method,
    header::{COOKIE, SET_COOKIE},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A client of the broker.
pub(crate) struct Broker {
    runtime: Runtime,
    client: Client,
}

/// What the broker says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    cookie: Option<String>,
}

impl Answer {
    /// The sentence of a refusal.
    pub(crate) fn detail(&self) -> &str {
        self.body.get("detail").and_then(Value::as_str).unwrap_or_default()
    }

    /// The refusal, which must say `word`.
    pub(crate) fn refused(&self, word: &str) -> Result<String> {
        ensure!(self.status >= 400, "it was granted: {self:?}");
        ensure!(
            self.detail().contains(word),
            "the refusal does not say {word:?}: {self:?}"
        );
        Ok(format!("{} {}", self.status, self.detail()))
    }

    /// That it was granted.
    pub(crate) fn granted(&self) -> Result<()> {
        ensure!(self.status == 200, "it was refused: {self:?}");
        Ok(())
    }
}

impl Broker {
    pub(crate) fn of(stack: &Stack) -> Result<Self> {
        Self::at(stack.var("KBS"), Path::new(stack.var("KBS_CA")))
    }

    /// Another broker, by its address and the authority of its certificate.
    pub(crate) fn at(url: &str, ca: &Path) -> Result<Self> {
        let roots = TlsRoots::from_pem(&fs::read_to_string(ca)?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::new(url.parse()?, Some(roots), ClientConfig::default())?;
        Ok(Self { runtime, client })
    }

    fn send(&self, method: Method, path: &str, cookie: Option<&str>, body: String) -> Result<Answer> {
        let mut headers = HeaderMap::new();
        if let Some(cookie) = cookie {
            headers.insert(
                COOKIE,
                HeaderValue::try_from(format!("{}={cookie}", wire::SESSION_COOKIE))?,
            );
        }
        self.runtime.block_on(async {
            let response = self.client.send(method, path, headers, Bytes::from(body)).await?;
            let status = response.status.as_u16();
            let cookie = response.headers.get(SET_COOKIE).and_then(|value| {
                let (_, value) = value.to_str().ok()?.split_once('=')?;
                Some(value.split(';').next()?.to_owned())
            });
            let bytes = response.bytes(1 << 20).await?;
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Ok(Answer { status, body, cookie })
        })
    }

    /// A session's cookie and nonce.
    pub(crate) fn challenge(&self) -> Result<(String, String)> {
        self.challenge_for("snp")
    }

    /// The same for another kind of guest.
    pub(crate) fn challenge_for(&self, tee: &str) -> Result<(String, String)> {
        let body = json!({"version": wire::VERSION, "tee": tee, "extra-params": ""});
        let answer = self.send(Method::POST, wire::AUTH_PATH, None, body.to_string())?;
        answer.granted()?;
        let nonce = answer
            .body
            .get("nonce")
            .and_then(Value::as_str)
            .context("no nonce")?
            .to_owned();
        Ok((answer.cookie.context("no cookie")?, nonce))
    }

    pub(crate) fn attest(&self, cookie: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, wire::ATTEST_PATH, Some(cookie), body.to_string())
    }

    /// A resource, asked for in a session.
    pub(crate) fn resource(&self, cookie: &str, path: &str) -> Result<Answer> {
        self.send(
            Method::GET,
            &format!("{}/{path}", wire::RESOURCE_PATH),
            Some(cookie),
            String::new(),
        )
    }

    /// The whole of it for a guest: challenge, evidence, resource. Gives the first refusal or the resource's answer.
    pub(crate) fn ask(&self, guest: &Guest, path: &str) -> Result<Answer> {
        let (cookie, nonce) = self.challenge()?;
        let answer = self.attest(&cookie, &guest.attestation(&nonce)?)?;
        if answer.status != 200 {
            return Ok(answer);
        }
        self.resource(&cookie, path)
    }
}

/// A guest on the simulated platform: what it was launched with, and what its host has the platform sign.
pub(crate) struct Guest {
    pub(crate) initdata: String,
    pub(crate) measurement: [u8; 48],
    pub(crate) key: TeeKey,
    pub(crate) chip: Chip,
    /// What to change in the report before it is signed.
    pub(crate) change: fn(&mut Claims),
}

impl Guest {
    /// On the platform whose root the broker knows.
    pub(crate) fn of(stack: &Stack) -> Result<Self> {
        Ok(Self {
            initdata: initdata::write(
                include_str!("../../libs/policy/src/policy/example.toml"),
                Algorithm::Sha256,
            ),
            measurement: [0x5a; 48],
            key: TeeKey::generate()?,
            chip: Chip::load(stack.var("SIM_STATE").as_ref())?,
            change: |_| {},
        })
    }

    /// A rule that names it, as JSON.
    pub(crate) fn rule(&self) -> Value {
        json!({
            "launch-digests": [hex::encode(self.measurement)],
            "policy-digests": [hex::encode(self.policy_digest())],
            "allow-simulated": true,
        })
    }

    /// With another claim in its reports.
    pub(crate) fn claiming(self, change: fn(&mut Claims)) -> Self {
        Self { change, ..self }
    }

    /// With another policy.
    pub(crate) fn with_policy(self, policy: &str) -> Self {
        Self {
            initdata: initdata::write(policy, Algorithm::Sha256),
            ..self
        }
    }

    pub(crate) fn policy_digest(&self) -> [u8; 32] {
        initdata::digests(self.initdata.as_bytes()).sha256
    }

    pub(crate) fn evidence(&self, report_data: [u8; 64]) -> Result<Evidence> {
        let mut claims = Claims::new(report_data, self.measurement, self.policy_digest());
        (self.change)(&mut claims);
        Ok(self.chip.issue(&claims)?)
    }

    /// The body of `/attest` for a nonce.
    pub(crate) fn attestation(&self, nonce: &str) -> Result<Value> {
        self.attestation_with(nonce, "")
    }

    /// The same of a guest that has bound evidence of a further device, which is not in the body yet.
    pub(crate) fn attestation_with(&self, nonce: &str, additional: &str) -> Result<Value> {
        let key = self.key.public();
        let evidence = self.evidence(wire::report_data(nonce, &key, additional))?;
        Ok(json!({
            "init-data": {"format": "toml", "body": self.initdata},
            "runtime-data": {"nonce": nonce, "tee-pubkey": key},
            "tee-evidence": {"primary_evidence": trustee::to_json(&evidence)?, "additional_evidence": ""},
        }))
    }
}

/// Runs an admin command of `cellactl kbs` against one broker.
pub(crate) type Admin<'a> = &'a dyn Fn(&[&str]) -> Result<String>;

/// Stores a new key at a broker, without a rule.
pub(crate) fn store_at(f: &Fixture, admin: Admin<'_>, path: &str) -> Result<()> {
    let file = f.stack.path(&f.stack.fresh("key"));
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)?
        .write_all(&[0x4b; 32])?;
    admin(&["set-key", path, "--key-file", &file.to_string_lossy()]).map(drop)
}

/// Sets the rule of a key, as JSON.
pub(crate) fn rule_at(f: &Fixture, admin: Admin<'_>, path: &str, rule: &Value) -> Result<()> {
    let file = f.stack.path(&f.stack.fresh("rule"));
    fs::write(&file, rule.to_string())?;
    admin(&["set-rule", path, "--rule", &file.to_string_lossy()]).map(drop)
}

/// Stores a new key at the stack's broker, without a rule.
pub(crate) fn store(f: &Fixture, path: &str) -> Result<()> {
    store_at(f, &|args| f.stack.kbs(args), path)
}

/// Sets the rule of a key: it names these guests, and says what `flags` say.
pub(crate) fn rule(f: &Fixture, path: &str, guests: &[&Guest], flags: &[&str]) -> Result<()> {
    let mut args = vec!["set-rule".to_owned(), path.to_owned()];
    for guest in guests {
        args.extend(["--launch-digest".to_owned(), hex::encode(guest.measurement)]);
        args.extend(["--policy-digest".to_owned(), hex::encode(guest.policy_digest())]);
    }
    args.extend(flags.iter().map(|&flag| flag.to_owned()));
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    f.stack.kbs(&args).map(drop)
}

/// Stores a key with a rule that releases it to these simulated guests.
pub(crate) fn store_for(f: &Fixture, path: &str, guests: &[&Guest]) -> Result<()> {
    store(f, path)?;
    rule(f, path, guests, &["--allow-simulated"])
}
