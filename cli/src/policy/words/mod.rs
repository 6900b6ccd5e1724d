//! A policy in plain words, for whoever signs it off; and the change from one to another.

mod container;
mod difference;
mod facts;
mod freedom;

use cella_policy::initdata;
use cella_policy::{
    CertificatePem, ModelPolicy, NetworkPolicy, OutputPolicy, PodPolicy, Policy, Provenance, Registry, Rule, Stats,
};
use ring::digest::{SHA256, digest};

pub(super) use difference::Difference;

use self::facts::Subject;
use crate::units;

/// Everything that the policy allows; of the document that carries it, the digest.
pub(super) fn describe(policy: &Policy, document: Option<&[u8]>) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    let freedoms = freedom::freedoms(policy);
    if !freedoms.is_empty() {
        line("DEVELOPMENT POLICY. The host decides what is listed under \"Left to the host\":");
        line("give it no key, model or prompt that matters.\n");
    }
    line("This guest may do the following, and nothing else.");
    let (guest, others) = (guest(policy), others(policy));
    guest.render(&mut out);
    for subject in others {
        out.push_str(&format!("\n{}\n", subject.title));
        subject.render(&mut out);
    }
    if !freedoms.is_empty() {
        out.push_str("\nLeft to the host: development freedoms\n");
        for freedom in freedoms {
            out.push_str(&format!("  {freedom}\n"));
        }
    }
    if let Some(document) = document {
        let digests = initdata::digests(document);
        out.push_str(&format!(
            "\ninitdata: {} bytes, sha256 {}\n",
            units::grouped(document.len() as u64),
            hex::encode(digests.sha256)
        ));
    }
    out
}

/// All that a policy says, by subject.
fn subjects(policy: &Policy) -> Vec<Subject> {
    let mut all = vec![guest(policy)];
    all.extend(others(policy));
    all
}

fn others(policy: &Policy) -> Vec<Subject> {
    let containers = policy.containers().iter().map(container::container);
    let models = policy.models().iter().map(|one| model("Model", one));
    let datasets = policy.datasets().iter().map(|one| model("Dataset", one));
    let outputs = policy.output().into_iter().map(output);
    containers.chain(models).chain(datasets).chain(outputs).collect()
}

fn guest(policy: &Policy) -> Subject {
    let mut guest = Subject::new("Guest");
    if let Some((name, revision)) = policy.revision() {
        guest.says("policy", format!("{name} revision {revision}"));
    }
    match policy.kbs() {
        Some(kbs) => {
            guest.grants("keys from", format!("{}, by {}", kbs.url, authority(&kbs.ca)));
            if !kbs.token_keys.is_empty() {
                guest.demands("the time", format!("by tokens signed with {}", list(&kbs.token_keys)));
            }
        }
        None => guest.says("keys from", "nobody: it names no key and does not attest itself"),
    }
    for registry in policy.registries() {
        content(&mut guest, registry);
    }
    pod(&mut guest, policy.pod());
    network(&mut guest, policy.network());
    guest
}

fn content(guest: &mut Subject, registry: &Registry) {
    let transport = match &registry.ca {
        Some(ca) => format!("by {}", authority(ca)),
        None => "in the clear: every byte is checked against a digest".to_owned(),
    };
    guest.grants(
        "content from",
        format!("{} at {}, {transport}", registry.name, registry.endpoint),
    );
    let mirrors = registry.mirrors.iter().map(|mirror| &mirror.endpoint);
    guest.grants_each("  or before", mirrors, "");
}

/// An authority by its certificate's digest: another one is another line.
fn authority(ca: &CertificatePem) -> String {
    let digest = hex::encode(digest(&SHA256, ca.as_str().as_bytes()));
    format!("an authority of its own, {}", digest.get(..12).unwrap_or_default())
}

fn pod(guest: &mut Subject, pod: &PodPolicy) {
    guest.grants_each(
        "host may set",
        pod.sysctl.iter().map(|name| format!("kernel parameter {name}")),
        "",
    );
    match &pod.forward_ports {
        Rule::Any => guest.grants("host reaches", "ANY TCP port"),
        Rule::Only(ports) => {
            guest.grants_each(
                "host reaches",
                ports.iter().map(|port| format!("TCP port {port} through the agent")),
                "",
            );
        }
    }
    guest.grants_each("host may call", &pod.calls, "");
    match pod.stats {
        Stats::Deny => {}
        Stats::Coarse => guest.grants("host learns", "use of memory and CPU, coarse, once a minute"),
        Stats::Exact => guest.grants("host learns", "use of memory, CPU and network, exactly"),
    }
    if pod.share_process_namespace {
        guest.grants("processes", "containers may see and signal each other's");
    }
}

fn network(guest: &mut Subject, network: &NetworkPolicy) {
    match &network.egress {
        Rule::Any => guest.grants("speaks to", "ANYBODY"),
        Rule::Only(list) => guest.grants_each("speaks to", list, "nobody beyond the pod"),
    }
    match &network.ingress {
        Rule::Any => guest.grants("clients use", "ANY port"),
        Rule::Only(ports) => guest.grants_each("clients use", ports, "no port"),
    }
}

fn model(kind: &str, model: &ModelPolicy) -> Subject {
    let mut subject = Subject::new(format!("{kind} {:?}", model.name));
    subject.grants("version", model.version.to_string());
    subject.grants("artifact", model.artifact.to_string());
    subject.grants_each("keys", &model.keys, "");
    subject.says(
        "size",
        format!("{} bytes ({})", units::grouped(model.bytes), units::bytes(model.bytes)),
    );
    match model.provenance {
        Provenance::Sealed => {}
        Provenance::Digest(None) => subject.demands("digest", "of the plaintext, computed and recorded"),
        Provenance::Digest(Some(digest)) => {
            subject.demands("digest", format!("{digest} of the plaintext, or it does not run"));
        }
    }
    subject
}

fn output(output: &OutputPolicy) -> Subject {
    let mut subject = Subject::new(format!("Output {:?}", output.name));
    subject.grants("version", output.version.to_string());
    subject.grants(
        "files of",
        format!(
            "{:?}, what it leaves at {} when it ends with status 0",
            output.container, output.destination
        ),
    );
    subject.grants("sealed with", output.key.to_string());
    subject.grants(
        "pushed to",
        format!("{}/{}:{}", output.registry, output.repository, output.tag()),
    );
    subject.grants("size", format!("at most {} bytes", units::grouped(output.max_bytes)));
    subject
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn words(texts: &[String]) -> String {
    texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" ")
}

/// Plain words as they are, everything else in quotes.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("{text:?}")
    }
}
