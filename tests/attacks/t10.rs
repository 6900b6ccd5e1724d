//! T10: names, routes, time and randomness that the host chooses.
mod clock;

use anyhow::{Result, ensure};
use cella_tests::{
    Fixture, Outcome, attacker,
    attacker::Peer,
    fixture::{HELLO, refused},
};

use crate::attack::{Attack, Ground, On, Seen, Threat, said};

pub(crate) const THREAT: Threat = Threat {
    number: 10,
    title: "Host-controlled DNS, routes, time, entropy",
    attacks: &[
        Attack {
            name: "the_brokers_address_leads_elsewhere",
            tried: "the broker's address answered by a machine with a good certificate of another authority, as after poisoned DNS or another route",
            on: On::Machine,
            run: elsewhere,
        },
        Attack {
            name: "a_brokers_certificate_revived",
            tried: "the machine's clock set back by ten hours, and a relay with a certificate of the broker's that expired an hour ago",
            on: On::Machine,
            run: clock::broker_revived,
        },
        Attack {
            name: "a_registrys_certificate_revived",
            tried: "the machine's clock set back by two hours, and a registry with a certificate that expired an hour ago",
            on: On::Machine,
            run: clock::registry_revived,
        },
        Attack {
            name: "a_clock_ten_years_ahead_or_behind",
            tried: "the machine's clock (CMOS) set ten years ahead, and ten years back",
            on: On::Machine,
            run: clock::another_time,
        },
        Attack {
            name: "a_token_that_no_pinned_key_signed",
            tried: "a broker's token, which states the time, signed by a key that the policy does not pin",
            on: On::Machine,
            run: clock::unpinned_token,
        },
        Attack {
            name: "a_processor_without_random_numbers",
            tried: "the host hides RDRAND and RDSEED from the guest, so that it could only wait for what the host feeds it",
            on: On::Machine,
            run: no_entropy,
        },
    ],
    open: &[],
};

fn hello() -> String {
    format!("echo {HELLO}")
}

fn elsewhere(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let mut workload = f.shell(&hello());
    // The registry's certificate is good for the address, but not signed by the broker's authority.
    workload.kbs = f.stack.var("REGISTRY_GUEST").to_owned();
    let policy = f.allowed(&workload)?;
    let mark = f.stack.mark()?;
    let out = f.start(&policy, &hello()).go(&f.stack)?;
    refused(&out, &[&workload.kbs])?;
    f.stack.no_key_released(mark)?;
    f.stack.no_layer_fetched(mark, &f.image)?;
    // Whoever has the broker's own certificate is spoken to.
    let imposter = Peer::garbage_broker(&f.stack, b"{\"nonce\": 1}")?;
    let mut workload = f.shell(&hello());
    workload.kbs = imposter.guest_url();
    let policy = f.allowed(&workload)?;
    let spoken = f.start(&policy, &hello()).go(&f.stack)?;
    refused(&spoken, &[&workload.kbs])?;
    ensure!(said(&spoken) != said(&out), "{spoken:?}");
    Ok(Seen::new(
        format!(
            "a machine with the broker's own, stolen certificate is spoken to; what it then says is refused: {}",
            said(&spoken)
        ),
        said(&out),
    ))
}

/// A QEMU whose processor has these features more or less.
fn with_cpu(f: &Fixture, features: &str) -> Result<Outcome> {
    let wrapper = attacker::qemu_wrapper(
        &f.stack,
        &format!(
            "for a in \"$@\"; do [[ $a == max,* || $a == host* ]] && a+={features}; args+=(\"$a\"); done\nexec \"$QEMU\" \"${{args[@]}}\""
        ),
    )?;
    let policy = f.allowed(&f.shell(&hello()))?;
    f.start(&policy, &hello())
        .configured(&f.stack, &[("qemu", &format!("{wrapper:?}")), ("boot-timeout-s", "30")])?
        .go(&f.stack)
}

fn no_entropy(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let mark = f.stack.mark()?;
    let out = with_cpu(f, ",-rdrand,-rdseed")?;
    refused(&out, &["RDRAND"])?;
    f.stack.no_key_released(mark)?;
    let ran = with_cpu(f, ",+rdrand")?;
    ensure!(ran.code == 0 && ran.stdout.contains(HELLO), "{ran:?}");
    Ok(Seen::new("the same machine with the instruction runs", said(&out)))
}
