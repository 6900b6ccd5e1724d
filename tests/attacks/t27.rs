//! T27: a health endpoint as a way in. There is none of Cella's own yet; what the host reaches are ports that the policy names.
use std::time::Duration;

use anyhow::{Result, ensure};
use cella_tests::process::wait_until;

use crate::{
    agent::Guest,
    attack::{Attack, Ground, On, Open, Seen, Threat},
};

pub(crate) const THREAT: Threat = Threat {
    number: 27,
    title: "Health endpoint abuse",
    attacks: &[Attack {
        name: "ports_of_a_pod_whose_policy_names_none",
        tried: "every port on which the pod or the agent may listen, through the guest's vsock, of a pod that names none",
        on: On::Machine,
        run: ports,
    }],
    open: &[Open {
        name: "an_oracle_in_the_health_endpoint",
        part: "bodies, paths, headers and methods of a plaintext health endpoint",
        because: "there is no health endpoint yet, it comes with the attested ingress: probes see only ports that the policy names",
    }],
};

fn ports(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let line = "echo served > /tmp/index.html; httpd -f -p 8080 -h /tmp";
    let tmpfs = "[[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 1\n";
    let start = |more: &str| -> Result<cella_tests::Run> {
        let policy = f.allowed(&f.shell(line).container(&format!("{tmpfs}{more}")))?;
        let run = f.start(&policy, line).detached();
        let out = run.go(&f.stack)?;
        ensure!(out.code == 0, "{out:?}");
        Ok(run)
    };
    let open = start("[pod]\nforward-ports = [8080]\n")?;
    let guest = Guest::of(f)?;
    let served = wait_until(Duration::from_secs(10), || guest.forward(8080))?;
    ensure!(served.contains("served"), "{served:?}");
    open.remove(&f.stack)?;
    g.leaves_nothing()?;
    let shut = start("")?;
    let guest = Guest::of(f)?;
    let tried = [8080, 80, 443, 1024, 1025, 1026, 1027, 8443, 9090, 10250, 1, 65535];
    for port in tried {
        let answer = guest.forward(port)?;
        ensure!(answer.is_none(), "port {port}: {answer:?}");
    }
    let refusal = guest.api()?.events().into_iter().find(|text| text.contains("8080"));
    shut.remove(&f.stack)?;
    ensure!(refusal.is_some(), "no event names the port");
    Ok(Seen::new(
        "under a policy that names the port its server answers",
        format!("{} ports: {}", tried.len(), refusal.unwrap_or_default()),
    ))
}
