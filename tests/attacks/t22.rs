//! T22: evidence of development platforms and of guests that the host can look into.
use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use cella_attest::{
    Anchors, Expected, VerifyError, VerifyOptions,
    sim::{Chip, TdAuthority, TdJudgement},
    snp::{POLICY_DEBUG, Report},
    tdx::{ATTRIBUTE_DEBUG, Roots, TdxEvidence, TdxExpected, TdxOptions},
    verify_with,
};
use cella_tests::{
    Fixture, Mark, attacker,
    fixture::{HELLO, refused},
};

use crate::{
    attack::{Attack, Ground, On, Seen, Threat, chain, said},
    broker::{self, Broker, Guest},
    vectors,
};

pub(crate) const THREAT: Threat = Threat {
    number: 22,
    title: "Debug variants accepted",
    attacks: &[
        Attack {
            name: "evidence_of_an_unknown_root",
            tried: "the host makes a simulated platform of its own, with a root of its own",
            on: On::Machine,
            run: unknown_root,
        },
        Attack {
            name: "evidence_with_the_debug_bit",
            tried: "the guest is launched with SNP's debug bit, so that the host may read its memory",
            on: On::Machine,
            run: debug_bit,
        },
        Attack {
            name: "simulated_evidence_where_the_rule_forbids_it",
            tried: "a simulated guest asks for a key whose rule does not say `allow-simulated`",
            on: On::Machine,
            run: simulated_forbidden,
        },
        Attack {
            name: "a_broker_that_knows_no_simulated_root",
            tried: "simulated evidence to a verifier with the vendor's roots alone, as a broker without `simulated-root` has it",
            on: On::SimulatedEvidence,
            run: default_roots,
        },
        Attack {
            name: "a_real_report_with_the_debug_bit",
            tried: "a real Milan's report whose guest policy has bit 19",
            on: On::RealEvidence,
            run: real_debug,
        },
        Attack {
            name: "a_trust_domain_with_the_debug_attribute",
            tried: "a TDX quote whose attributes have bit 0, against every setting of the verifier",
            on: On::SimulatedEvidence,
            run: td_debug,
        },
        Attack {
            name: "the_production_agent_holds_no_simulation",
            tried: "the simulation's code is looked for in the agent that boots on hardware",
            on: On::Desk,
            run: no_simulation_in_production,
        },
    ],
    open: &[],
};

fn hello() -> String {
    format!("echo {HELLO}")
}

fn nothing_used(f: &Fixture, mark: Mark) -> Result<()> {
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)
}

fn unknown_root(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let state = f.stack.path(&f.stack.fresh("sim"));
    let made = std::process::Command::new(format!("{}/cella-sim-platform", f.stack.var("BIN")))
        .args(["init", "--state"])
        .arg(&state)
        .output()?;
    ensure!(made.status.success(), "{made:?}");
    // With its root among the verifier's the very same platform's evidence is good.
    let guest = Guest {
        chip: Chip::load(&state)?,
        ..Guest::of(&f.stack)?
    };
    let expected = Expected {
        report_data: &[3; 64],
        host_data: None,
        vmpl: 0,
    };
    let anchors = Anchors::none().with_simulated_pem(&fs::read_to_string(Chip::ark_path(&state))?)?;
    verify_with(
        &guest.evidence([3; 64])?,
        &anchors,
        &expected,
        &VerifyOptions::default(),
    )?;

    let policy = f.allowed(&f.shell(&hello()))?;
    let mark = f.stack.mark()?;
    let out = f
        .start(&policy, &hello())
        .configured(&f.stack, &[("sim-state", &format!("{state:?}"))])?
        .go(&f.stack)?;
    refused(&out, &["root not trusted"])?;
    nothing_used(f, mark)?;
    Ok(Seen::new(
        "a verifier that has this root accepts the platform's evidence",
        said(&out),
    ))
}

fn debug_bit(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let wrapper = |from: &str, to: &str| {
        let replace = format!("${{a/{from}/{to}}}");
        attacker::qemu_wrapper(
            &f.stack,
            &format!("for a in \"$@\"; do args+=(\"{replace}\"); done\nexec \"$QEMU\" \"${{args[@]}}\""),
        )
    };
    let policy = f.allowed(&f.shell(&hello()))?;
    let start = |qemu: &Path| {
        f.start(&policy, &hello())
            .configured(&f.stack, &[("qemu", &format!("{qemu:?}"))])?
            .go(&f.stack)
    };
    let mark = f.stack.mark()?;
    let out = start(&wrapper("policy=0x30000", "policy=0xb0000")?)?;
    refused(&out, &["debug"])?;
    nothing_used(f, mark)?;
    let ran = start(&wrapper("policy=0x30000", "policy=0x30000")?)?;
    ensure!(ran.code == 0 && ran.stdout.contains(HELLO), "{ran:?}");
    Ok(Seen::new(
        "the same launch with that bit clear gets its keys; no option of broker or rule takes it set",
        said(&out),
    ))
}

fn simulated_forbidden(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let policy = f.shell(&hello()).write(&f.stack)?;
    let rules = |flags: &[&str]| f.set_rules(f.launch_digest(), std::slice::from_ref(&policy.digest), flags);
    rules(&[])?;
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &hello()).go(&f.stack)?;
    refused(&out, &["simulated"])?;
    nothing_used(f, mark)?;
    rules(&["--allow-simulated"])?;
    let ran = f.start(&policy, &hello()).go(&f.stack)?;
    ensure!(ran.code == 0 && ran.stdout.contains(HELLO), "{ran:?}");
    Ok(Seen::new(
        "under a rule with `allow-simulated` the same pod runs",
        said(&out),
    ))
}

fn default_roots(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let guest = Guest::of(&f.stack)?;
    let evidence = guest.evidence([3; 64])?;
    let expected = Expected {
        report_data: &[3; 64],
        host_data: None,
        vmpl: 0,
    };
    broker::store_for(f, "attack/sim-root/1", &[&guest])?;
    Broker::of(&f.stack)?.ask(&guest, "attack/sim-root/1")?.granted()?;
    match verify_with(&evidence, &Anchors::amd(), &expected, &VerifyOptions::default()) {
        Err(error @ VerifyError::Chain(_)) => Ok(Seen::new(
            "the stack's broker, whose configuration names the simulated root, releases a key to it",
            chain(&error),
        )),
        other => bail!("{other:?}"),
    }
}

fn real_debug(_: &Ground) -> Result<Seen> {
    let check = |evidence: &cella_attest::Evidence| -> Result<_> {
        let report = Report::parse(&evidence.report)?;
        let expected = Expected {
            report_data: &report.report_data,
            host_data: None,
            vmpl: report.vmpl,
        };
        let options = VerifyOptions::default().allow_milan(true).min_version(2);
        Ok((
            report.policy,
            verify_with(evidence, &Anchors::amd(), &expected, &options),
        ))
    };
    let (policy, genuine) = check(&vectors::milan()?)?;
    ensure!(policy & POLICY_DEBUG == 0);
    genuine?;
    let (policy, debug) = check(&vectors::milan_debug()?)?;
    ensure!(policy & POLICY_DEBUG != 0);
    match debug {
        Err(error @ VerifyError::DebugAllowed { .. }) => Ok(Seen::new(
            "under the same options a Milan's report without that bit is accepted; no option takes it set",
            chain(&error),
        )),
        other => bail!("{other:?}"),
    }
}

fn td_debug(_: &Ground) -> Result<Seen> {
    let authority = TdAuthority::generate()?;
    let issued =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)? + std::time::Duration::from_secs(60);
    let collateral = authority.collateral(&TdJudgement::up_to_date(issued))?;
    let roots = Roots::none().with_simulated(authority.root_spki_sha256());
    let check = |attributes: u64, options: &TdxOptions| -> Result<_> {
        let mut report = TdAuthority::report([5; 64], [6; 48], [[1; 48]; 4], [7; 48]);
        report.attributes |= attributes;
        let quote = authority.quote(&report)?;
        let evidence = TdxEvidence {
            quote: &quote,
            event_log: None,
        };
        let expected = TdxExpected {
            report_data: &[5; 64],
            mr_config_id: None,
        };
        let now = issued + std::time::Duration::from_secs(10);
        Ok(cella_attest::tdx::verify(
            &evidence,
            &collateral,
            &roots,
            &expected,
            options,
            now,
        ))
    };
    check(0, &TdxOptions::default())??;
    let mut refusal = String::new();
    for options in [TdxOptions::default(), TdxOptions::default().attributes(u64::MAX, 0)] {
        match check(ATTRIBUTE_DEBUG, &options)? {
            Ok(_) => bail!("a TD with the debug attribute was accepted"),
            Err(error) => refusal = chain(&error),
        }
    }
    Ok(Seen::new(
        "the same TD without it is accepted; with it, not even where all attributes are allowed",
        refusal,
    ))
}

fn no_simulation_in_production(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    // A text of agent/src/evidence/sim.rs. (The words of EvidenceError are in both: an error type is no way in.)
    let words = b"asking for a report";
    let holds = |kind: &str| -> Result<bool> {
        let path = Path::new(f.stack.var("GUEST_IMAGE"))
            .with_file_name(kind)
            .join("initrd");
        let bytes = fs::read(&path).with_context(|| format!("{}: run make guest-image", path.display()))?;
        Ok(bytes.windows(words.len()).any(|w| w == words))
    };
    ensure!(holds("sim")?, "the words that mark the simulation's code have changed");
    ensure!(!holds("hw")?, "the agent for hardware holds code of the simulation");
    Ok(Seen::new(
        "the development image holds it",
        "the image for hardware does not hold it",
    ))
}
