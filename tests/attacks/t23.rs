//! T23: platforms whose firmware has known holes. TDX's judgements come from Intel's documents, SNP's from floors.
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail, ensure};
use cella_attest::{
    TdEvidence,
    sim::{TdAuthority, TdJudgement},
    tdx::{self, Collateral, Roots, TcbException, TcbStatus, TdxEvidence, TdxExpected, TdxOptions, VerifiedTd},
    trustee,
};
use cella_kbs_client::{TeeKey, wire};
use cella_policy::initdata::{self, Algorithm};
use serde_json::{Value, json};

use crate::{
    attack::{Attack, Ground, On, Seen, Threat, chain},
    broker::{self, Answer, Guest},
    own::Own,
    vectors,
};

pub(crate) const THREAT: Threat = Threat {
    number: 23,
    title: "TCB status not gated",
    attacks: &[
        Attack {
            name: "each_status_that_is_not_up_to_date",
            tried: "TDX platforms of each of Intel's seven TCB statuses",
            on: On::SimulatedEvidence,
            run: statuses,
        },
        Attack {
            name: "an_exception_stretched",
            tried: "an exception used for another advisory, another status, or after its end",
            on: On::SimulatedEvidence,
            run: exceptions,
        },
        Attack {
            name: "documents_of_another_time",
            tried: "collateral that has expired, or is not valid yet, which says what the platform was once",
            on: On::SimulatedEvidence,
            run: collateral,
        },
        Attack {
            name: "an_out_of_date_platform_at_the_broker",
            tried: "a TDX guest on a platform that Intel calls out of date asks the broker for a key",
            on: On::Broker,
            run: at_the_broker,
        },
        Attack {
            name: "a_real_platform_that_is_behind",
            tried: "a real TDX quote, genuine up to Intel's root, of a platform that Intel calls out of date",
            on: On::RealEvidence,
            run: real_platform,
        },
    ],
    open: &[],
};

const STATUSES: [TcbStatus; 7] = [
    TcbStatus::UpToDate,
    TcbStatus::SWHardeningNeeded,
    TcbStatus::ConfigurationNeeded,
    TcbStatus::ConfigurationAndSWHardeningNeeded,
    TcbStatus::OutOfDate,
    TcbStatus::OutOfDateConfigurationNeeded,
    TcbStatus::Revoked,
];

struct Platform {
    authority: TdAuthority,
    issued: Duration,
}

impl Platform {
    fn new() -> Result<Self> {
        let authority = TdAuthority::generate()?;
        let issued = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_secs(60);
        Ok(Self { authority, issued })
    }

    fn now(&self) -> Duration {
        self.issued + Duration::from_secs(10)
    }

    fn judged(
        &self,
        change: impl FnOnce(&mut TdJudgement),
        options: &TdxOptions,
    ) -> Result<Result<VerifiedTd, tdx::TdxError>> {
        let mut judgement = TdJudgement::up_to_date(self.issued);
        change(&mut judgement);
        let quote = self
            .authority
            .quote(&TdAuthority::report([5; 64], [6; 48], [[1; 48]; 4], [7; 48]))?;
        let evidence = TdxEvidence {
            quote: &quote,
            event_log: None,
        };
        let expected = TdxExpected {
            report_data: &[5; 64],
            mr_config_id: None,
        };
        let roots = Roots::none().with_simulated(self.authority.root_spki_sha256());
        let collateral = self.authority.collateral(&judgement)?;
        Ok(tdx::verify(
            &evidence,
            &collateral,
            &roots,
            &expected,
            options,
            self.now(),
        ))
    }
}

fn exception(status: TcbStatus, advisories: &[&str], until: Duration) -> TdxOptions {
    let advisories = advisories.iter().map(|id| (*id).to_owned()).collect();
    TdxOptions::default().exception(TcbException {
        status,
        advisories,
        until,
    })
}

fn statuses(_: &Ground) -> Result<Seen> {
    let platform = Platform::new()?;
    let later = platform.now() + Duration::from_secs(60);
    let (mut refusals, mut excepted) = (Vec::new(), 0);
    for status in STATUSES {
        match platform.judged(|j| j.platform = status, &TdxOptions::default())? {
            Ok(_) => ensure!(status == TcbStatus::UpToDate, "{status} was accepted"),
            Err(error) => refusals.push(chain(&error)),
        }
        let named = platform.judged(|j| j.platform = status, &exception(status, &[], later))?;
        ensure!(
            named.is_ok() == (status != TcbStatus::Revoked),
            "{status} with an exception: {named:?}"
        );
        excepted += usize::from(named.is_ok());
    }
    Ok(Seen::new(
        format!("an exception that names the status lets {excepted} of the 7 in, Revoked never"),
        refusals.join("; "),
    ))
}

fn exceptions(_: &Ground) -> Result<Seen> {
    let platform = Platform::new()?;
    let (status, now) = (TcbStatus::SWHardeningNeeded, platform.now());
    let later = now + Duration::from_secs(1);
    let judged = |options: &TdxOptions| {
        platform.judged(
            |j| {
                j.platform = status;
                j.advisories = vec!["INTEL-SA-1".to_owned(), "INTEL-SA-2".to_owned()];
            },
            options,
        )
    };
    judged(&exception(status, &["INTEL-SA-1", "INTEL-SA-2"], later))??;
    let mut refusal = String::new();
    for options in [
        exception(status, &["INTEL-SA-1"], later),
        exception(TcbStatus::OutOfDate, &["INTEL-SA-1", "INTEL-SA-2"], later),
        exception(status, &["INTEL-SA-1", "INTEL-SA-2"], now),
    ] {
        match judged(&options)? {
            Ok(_) => bail!("the exception was stretched: {options:?}"),
            Err(error) => refusal = chain(&error),
        }
    }
    Ok(Seen::new(
        "the exception that names status and both advisories, and has not ended, lets it in",
        refusal,
    ))
}

fn collateral(_: &Ground) -> Result<Seen> {
    let platform = Platform::new()?;
    platform.judged(|_| {}, &TdxOptions::default())??;
    let hour = Duration::from_secs(3600);
    let mut refusals = Vec::new();
    for issued in [platform.issued - hour, platform.issued + hour] {
        match platform.judged(|j| *j = TdJudgement::up_to_date(issued), &TdxOptions::default())? {
            Ok(_) => bail!("collateral of another time was accepted"),
            Err(error) => refusals.push(chain(&error)),
        }
    }
    Ok(Seen::new(
        "the same platform with documents of today is accepted",
        refusals.join("; "),
    ))
}

/// A TDX guest without a machine around it, and a broker that has this judgement of its platform.
fn at_the_broker(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let authority = TdAuthority::generate()?;
    let issued = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let folder = f.stack.path(&f.stack.fresh("collateral"));
    fs::create_dir(&folder)?;
    let judgement = TdJudgement {
        platform: TcbStatus::OutOfDate,
        advisories: vec!["INTEL-SA-00001".to_owned()],
        ..TdJudgement::up_to_date(issued)
    };
    let collateral = authority.collateral(&judgement)?;
    fs::write(folder.join("platform.json"), collateral.to_json())?;
    // The root is the last certificate of every chain.
    let root = collateral
        .tcb_info_chain
        .rfind("-----BEGIN CERTIFICATE-----")
        .unwrap_or_default();
    let pem = folder.join("root.pem");
    fs::write(&pem, collateral.tcb_info_chain.split_at(root).1)?;
    let lines = format!(
        "tdx.collateral = {:?}\ntdx.simulated-root = {pem:?}\n",
        folder.join("platform.json")
    );
    let own = Own::start(f, &Path::new(f.stack.var("SIM_STATE")).join("ark.pem"), &lines)?;
    let (client, document) = (
        own.client()?,
        Guest::of(&f.stack)?.initdata.replacen("sha256", "sha384", 1),
    );
    let digests = initdata::digests(document.as_bytes());
    let ask = || -> Result<Answer> {
        let (cookie, nonce) = client.challenge_for("tdx")?;
        let key = TeeKey::generate()?.public();
        let mr_config_id = digests.field(Algorithm::Sha384);
        let report_data = wire::report_data(&nonce, &key, "");
        let quote = authority.quote(&TdAuthority::report(report_data, [6; 48], [[1; 48]; 4], mr_config_id))?;
        let evidence = trustee::td_to_json(&TdEvidence { quote, event_log: None })?;
        let body = json!({
            "init-data": {"format": "toml", "body": document},
            "runtime-data": {"nonce": nonce, "tee-pubkey": key},
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        });
        let answer = client.attest(&cookie, &body)?;
        if answer.status != 200 {
            Ok(answer)
        } else {
            client.resource(&cookie, "a/b/c")
        }
    };
    let rule = |exceptions: Value| {
        let register = hex::encode([1; 48]);
        json!({
            "launch-digests": [], "policy-digests": [hex::encode(digests.sha256)], "allow-simulated": true,
            "tdx": {
                "mrtd": [hex::encode([6; 48])], "rtmr0": "any", "rtmr1": [register], "rtmr2": [register], "rtmr3": [register],
                "exceptions": exceptions,
            },
        })
    };
    let admin = |args: &[&str]| own.admin(args);
    broker::store_at(f, &admin, "a/b/c")?;
    broker::rule_at(f, &admin, "a/b/c", &rule(json!([])))?;
    let refusal = ask()?.refused("platform TCB status not accepted")?;
    let exception = json!([{"status": "OutOfDate", "advisories": ["INTEL-SA-00001"], "until": "2999-01-01T00:00:00Z"}]);
    broker::rule_at(f, &admin, "a/b/c", &rule(exception))?;
    ask()?.granted()?;
    Ok(Seen::new(
        "a rule with an exception for this status and advisory, with an end, releases the key",
        refusal,
    ))
}

fn real_platform(_: &Ground) -> Result<Seen> {
    // Each with the collateral of its time. The first is up to date, the second below every level that Intel listed.
    let check = |name: &str, now: u64, options: &TdxOptions| -> Result<_> {
        let quote = vectors::read(&format!("{name}.bin"))?;
        let collateral = Collateral::from_json(&vectors::read(&format!("{name}.json"))?)?;
        let report = tdx::Quote::parse(&quote)?.report;
        let evidence = TdxEvidence {
            quote: &quote,
            event_log: None,
        };
        let expected = TdxExpected {
            report_data: &report.report_data,
            mr_config_id: None,
        };
        let options = options.clone().attributes(report.attributes, 0);
        let now = Duration::from_secs(now);
        Ok(tdx::verify(
            &evidence,
            &collateral,
            &Roots::intel(),
            &expected,
            &options,
            now,
        ))
    };
    check("tdx-v4", 1_750_400_000, &TdxOptions::default())??;
    let mut refusal = String::new();
    for options in [
        TdxOptions::default(),
        exception(TcbStatus::OutOfDate, &[], Duration::from_secs(2_000_000_000)),
    ] {
        match check("tdx-v5-15", 1_771_500_000, &options)? {
            Err(error @ tdx::TdxError::NoTcbLevel { .. }) => refusal = chain(&error),
            other => bail!("{other:?}"),
        }
    }
    Ok(Seen::new(
        "a real quote of a platform that was up to date is accepted; this one not even with an exception for OutOfDate",
        refusal,
    ))
}
