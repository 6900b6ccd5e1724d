//! T6: evidence put together from parts of several machines. GPUs are not appraised yet: what is glued on is refused as such.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail, ensure};
use cella_attest::{
    Anchors, Evidence, Expected, Verified, VerifyError, VerifyOptions,
    sim::{Authority, ChipSpec, Claims, TdAuthority, TdJudgement},
    tdx::{self, Roots, TdxEvidence, TdxExpected, TdxOptions},
    verify_with,
};
use serde_json::json;

use crate::{
    attack::{Attack, Ground, On, Seen, Threat, chain},
    broker::{self, Broker, Guest},
};

pub(crate) const THREAT: Threat = Threat {
    number: 6,
    title: "Mix-and-match evidence",
    attacks: &[
        Attack {
            name: "the_report_of_one_machine_under_the_key_of_another",
            tried: "each part of one SNP machine's evidence (signed report, signature, certificate) exchanged for another's",
            on: On::SimulatedEvidence,
            run: snp_parts,
        },
        Attack {
            name: "the_evidence_of_one_guest_with_the_key_of_another",
            tried: "a genuine guest's evidence, the host's own TEE key beside it",
            on: On::Broker,
            run: foreign_key,
        },
        Attack {
            name: "the_evidence_of_one_guest_with_the_policy_of_another",
            tried: "a genuine guest's evidence, the document of a more trusted guest beside it",
            on: On::Broker,
            run: foreign_policy,
        },
        Attack {
            name: "tdx_collateral_of_another_authority",
            tried: "a TDX quote with each document of its collateral exchanged for one by another authority",
            on: On::SimulatedEvidence,
            run: tdx_collateral,
        },
        Attack {
            name: "gpu_evidence_of_another_machine",
            tried: "what claims to be evidence of a GPU, glued to a genuine guest's: glued on by the host, and bound by the guest itself",
            on: On::Broker,
            run: glued_gpu,
        },
    ],
    open: &[],
};

const CHALLENGE: [u8; 64] = [5; 64];

fn snp_parts(_: &Ground) -> Result<Seen> {
    let authority = Authority::generate()?;
    let machine = |nonce| -> Result<Evidence> {
        Ok(authority
            .chip(&ChipSpec::random())?
            .issue(&Claims::new(nonce, [6; 48], [7; 32]))?)
    };
    let (a, b) = (machine(CHALLENGE)?, machine(CHALLENGE)?);
    let anchors = Anchors::none().with_simulated(authority.ark_spki_sha256());
    let check = |evidence: &Evidence| -> Result<Verified, VerifyError> {
        let expected = Expected {
            report_data: &CHALLENGE,
            host_data: Some(&[7; 32]),
            vmpl: 0,
        };
        verify_with(evidence, &anchors, &expected, &VerifyOptions::default())
    };
    check(&a)?;
    check(&b)?;
    let signed = cella_attest::snp::SIGNED_LEN;
    let glue = |body: &Evidence, signature: &Evidence, chain: &Evidence| -> Evidence {
        let (body, _) = body.report.split_at(signed);
        let (_, signature) = signature.report.split_at(signed);
        Evidence {
            report: [body, signature].concat(),
            chain: chain.chain.clone(),
        }
    };
    let mut refusal = String::new();
    for (body, signature, chained) in [
        (&a, &a, &b),
        (&a, &b, &a),
        (&a, &b, &b),
        (&b, &a, &a),
        (&b, &a, &b),
        (&b, &b, &a),
    ] {
        match check(&glue(body, signature, chained)) {
            Ok(_) => bail!("parts of two machines passed for one"),
            Err(error) => refusal = chain(&error),
        }
    }
    Ok(Seen::new(
        "each part is genuine: both machines' whole evidence passes",
        format!("all 6 combinations: {refusal}"),
    ))
}

fn foreign_key(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (broker, guest, host) = (Broker::of(&f.stack)?, Guest::of(&f.stack)?, Guest::of(&f.stack)?);
    broker::store_for(f, "attack/mixed-key/1", &[&guest])?;
    let (cookie, nonce) = broker.challenge()?;
    let mut body = guest.attestation(&nonce)?;
    *body
        .pointer_mut("/runtime-data/tee-pubkey")
        .ok_or_else(|| anyhow::anyhow!("no key"))? = serde_json::to_value(host.key.public())?;
    let refusal = broker.attest(&cookie, &body)?.refused("report data mismatch")?;
    broker.ask(&guest, "attack/mixed-key/1")?.granted()?;
    Ok(Seen::new(
        "with its own key beside it the same guest's evidence gets the resource",
        refusal,
    ))
}

fn foreign_policy(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let broker = Broker::of(&f.stack)?;
    let policy = include_str!("../../libs/policy/src/policy/example.toml");
    let trusted = Guest::of(&f.stack)?;
    let other = Guest::of(&f.stack)?.with_policy(&policy.replacen("name = \"server\"", "name = \"spy\"", 1));
    ensure!(trusted.initdata != other.initdata);
    broker::store_for(f, "attack/mixed-policy/1", &[&trusted])?;
    let (cookie, nonce) = broker.challenge()?;
    let mut body = other.attestation(&nonce)?;
    *body
        .pointer_mut("/init-data/body")
        .ok_or_else(|| anyhow::anyhow!("no document"))? = trusted.initdata.clone().into();
    let refusal = broker.attest(&cookie, &body)?.refused("initdata digest mismatch")?;
    broker.ask(&trusted, "attack/mixed-policy/1")?.granted()?;
    let (cookie, nonce) = broker.challenge()?;
    broker.attest(&cookie, &other.attestation(&nonce)?)?.granted()?;
    Ok(Seen::new(
        "each is genuine: both guests attest with their own documents, and the trusted one gets the key",
        refusal,
    ))
}

fn tdx_collateral(_: &Ground) -> Result<Seen> {
    let (own, other) = (TdAuthority::generate()?, TdAuthority::generate()?);
    let issued = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_secs(60);
    let quote = own.quote(&TdAuthority::report(
        CHALLENGE,
        [6; 48],
        [[1; 48], [2; 48], [3; 48], [0; 48]],
        [7; 48],
    ))?;
    let roots = Roots::none().with_simulated(own.root_spki_sha256());
    let check = |collateral: &tdx::Collateral| {
        let evidence = TdxEvidence {
            quote: &quote,
            event_log: None,
        };
        let expected = TdxExpected {
            report_data: &CHALLENGE,
            mr_config_id: Some(&[7; 48]),
        };
        tdx::verify(
            &evidence,
            collateral,
            &roots,
            &expected,
            &TdxOptions::default(),
            issued + Duration::from_secs(10),
        )
    };
    let judgement = TdJudgement::up_to_date(issued);
    let (genuine, foreign) = (own.collateral(&judgement)?, other.collateral(&judgement)?);
    check(&genuine)?;
    type Mix = fn(&mut tdx::Collateral, &tdx::Collateral);
    let mixes: [Mix; 4] = [
        |to, from| to.root_crl.clone_from(&from.root_crl),
        |to, from| to.pck_crl.clone_from(&from.pck_crl),
        |to, from| {
            to.tcb_info.clone_from(&from.tcb_info);
            to.tcb_info_signature = from.tcb_info_signature;
        },
        |to, from| to.qe_identity_chain.clone_from(&from.qe_identity_chain),
    ];
    let mut refusals = Vec::new();
    for mix in mixes {
        let mut mixed = genuine.clone();
        mix(&mut mixed, &foreign);
        match check(&mixed) {
            Ok(_) => bail!("a document of another authority passed"),
            Err(error) => refusals.push(chain(&error)),
        }
    }
    Ok(Seen::new(
        "the genuine collateral passes, and says the same as the exchanged one",
        refusals.join("; "),
    ))
}

/// No GPU is appraised yet, and what is not appraised is not taken: nobody may think that it was.
fn glued_gpu(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (broker, guest) = (Broker::of(&f.stack)?, Guest::of(&f.stack)?);
    broker::store_for(f, "attack/mixed-gpu/1", &[&guest])?;
    let gpu = json!([{"nvidia": {"evidence": "AAAA", "certificate": "AAAA", "arch": "HOPPER"}}]).to_string();
    let mut refusals = Vec::new();
    for bound in ["", &gpu] {
        let (cookie, nonce) = broker.challenge()?;
        let mut body = guest.attestation_with(&nonce, bound)?;
        *body
            .pointer_mut("/tee-evidence/additional_evidence")
            .ok_or_else(|| anyhow::anyhow!("no place for it"))? = gpu.as_str().into();
        refusals.push(broker.attest(&cookie, &body)?.refused("additional evidence")?);
        // Nothing was attested in this session.
        broker.resource(&cookie, "attack/mixed-gpu/1")?.refused("")?;
    }
    broker.ask(&guest, "attack/mixed-gpu/1")?.granted()?;
    Ok(Seen::new(
        "without the GPU's part the same guest's evidence gets the resource",
        refusals.join("; "),
    ))
}
