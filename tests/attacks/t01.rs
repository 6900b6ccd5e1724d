//! T1: what the host asks for and the policy does not name. Two pods take all of it: one obeys a policy that names one command line, the
//! other one that leaves everything to the host.
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use cella_tests::{
    Fixture, Run,
    fixture::{HELLO, refused},
    workload::Written,
};

use crate::{
    agent::Guest,
    attack::{Attack, Ground, On, Open, Seen, Threat, said},
};

pub(crate) const THREAT: Threat = Threat {
    number: 1,
    title: "Container specification tampering",
    attacks: &[
        Attack {
            name: "another_argument",
            tried: "another command line for an image that the policy names",
            on: On::Machine,
            run: |g| tampered(g, "argument"),
        },
        Attack {
            name: "another_environment_variable",
            tried: "`LD_PRELOAD` in the environment",
            on: On::Machine,
            run: |g| tampered(g, "variable"),
        },
        Attack {
            name: "another_mount",
            tried: "a tmpfs mounted at /host",
            on: On::Machine,
            run: |g| tampered(g, "mount"),
        },
        Attack {
            name: "a_folder_of_the_host",
            tried: "the host's /etc bound to /host",
            on: On::Machine,
            run: |g| tampered(g, "host-path"),
        },
        Attack {
            name: "another_image",
            tried: "an image that the policy does not name",
            on: On::Machine,
            run: |g| tampered(g, "image"),
        },
        Attack {
            name: "another_working_directory",
            tried: "another working directory",
            on: On::Machine,
            run: |g| tampered(g, "directory"),
        },
        Attack {
            name: "another_user",
            tried: "another user",
            on: On::Machine,
            run: |g| tampered(g, "user"),
        },
        Attack {
            name: "more_capabilities",
            tried: "CAP_SYS_ADMIN",
            on: On::Machine,
            run: |g| tampered(g, "capability"),
        },
        Attack {
            name: "privileged",
            tried: "a privileged container",
            on: On::Machine,
            run: |g| tampered(g, "privileged"),
        },
        Attack {
            name: "a_device",
            tried: "the device /dev/kvm",
            on: On::Machine,
            run: |g| tampered(g, "device"),
        },
        Attack {
            name: "an_extra_container",
            tried: "the same container a second time, beside the first",
            on: On::Machine,
            run: |g| tampered(g, "second"),
        },
        Attack {
            name: "a_required_container_left_out",
            tried: "a pod without the log filter that its policy requires, then requests through its ingress",
            on: On::Machine,
            run: left_out,
        },
    ],
    open: &[Open {
        name: "one_pod_taken_for_another",
        part: "a pod of the same policy in the place of another one",
        because: "pods of one policy are one identity: nothing in the evidence tells them apart yet",
    }],
};

fn hello() -> String {
    format!("echo {HELLO}")
}

/// What the strict policy names: it stays, so that a second one would be beside it.
fn stays() -> String {
    format!("echo {HELLO}; sleep 1000")
}

/// A wish that the policy does not name.
struct Wish {
    name: &'static str,
    flags: &'static [&'static str],
    line: Option<&'static str>,
    /// What the refusal says.
    words: &'static [&'static str],
}

const WISHES: &[Wish] = &[
    Wish {
        name: "argument",
        flags: &[],
        line: Some("echo something else"),
        words: &["policy denies", "args[3]"],
    },
    Wish {
        name: "variable",
        flags: &["--env", "LD_PRELOAD=/x.so"],
        line: None,
        words: &["policy denies", "LD_PRELOAD"],
    },
    Wish {
        name: "mount",
        flags: &["--mount", "type=tmpfs,src=tmpfs,dst=/host,options=size=1m"],
        line: None,
        words: &["policy denies", "/host"],
    },
    Wish {
        name: "host-path",
        flags: &["--mount", "type=bind,src=/etc,dst=/host,options=rbind:ro"],
        line: None,
        // The shim names what cannot be; the agent, which must not depend on the shim, has its own tests of the same.
        words: &["mount /host", "hostPath", "/etc", "cannot be kept confidential"],
    },
    Wish {
        name: "directory",
        flags: &["--cwd", "/tmp"],
        line: None,
        words: &["policy denies", "working directory"],
    },
    Wish {
        name: "user",
        flags: &["--user", "1000:1000"],
        line: None,
        words: &["policy denies", "uid"],
    },
    Wish {
        name: "capability",
        flags: &["--cap-add", "CAP_SYS_ADMIN"],
        line: None,
        words: &["policy denies", "CAP_SYS_ADMIN"],
    },
    Wish {
        name: "privileged",
        flags: &["--privileged"],
        line: None,
        words: &["policy denies"],
    },
    Wish {
        name: "device",
        flags: &["--device", "/dev/kvm"],
        line: None,
        words: &["policy denies", "/dev/kvm"],
    },
];

/// Leaves everything to the host: for development.
const ANYTHING: &str = "env-allow = [\"*\"]\ncwd = \"any\"\nuser = \"any\"\ncapabilities = \"any\"\nprivileged = true\n\
    new-privileges = true\nreadonly-rootfs = \"any\"\nvolumes = \"any\"\nrlimits = \"any\"\nmasked-paths = \"any\"\nseccomp = \"any\"\n\
    instances = \"any\"\n";

/// A machine for a pod, in which containers are then asked for.
struct Pod<'f> {
    f: &'f Fixture,
    policy: Written,
    sandbox: Run,
}

impl<'f> Pod<'f> {
    fn start(f: &'f Fixture, policy: Written) -> Result<Self> {
        let sandbox = f
            .start(&policy, "true")
            .flags(&["--annotation", "io.kubernetes.cri.container-type=sandbox"])
            .detached();
        let out = sandbox.go(&f.stack)?;
        ensure!(out.code == 0, "{out:?}");
        Ok(Self { f, policy, sandbox })
    }

    /// A container of the pod.
    fn member(&self, image: &str, line: &str, flags: &[&str]) -> Run {
        let sandbox = format!("io.kubernetes.cri.sandbox-id={}", self.sandbox.id);
        let member = [
            "--annotation",
            "io.kubernetes.cri.container-type=container",
            "--annotation",
            &sandbox,
        ];
        Run::new(&self.f.stack, image, &self.policy, &["/bin/busybox", "sh", "-c", line])
            .flags(&member)
            .flags(flags)
    }

    fn end(self) -> Result<()> {
        self.sandbox.remove(&self.f.stack)
    }
}

/// What came of each wish: name, without, refusal.
type Results = Vec<(&'static str, String, String)>;

fn tampered(g: &Ground, name: &'static str) -> Result<Seen> {
    static RESULTS: OnceLock<Result<Results, String>> = OnceLock::new();
    let results = RESULTS.get_or_init(|| g.fixture().and_then(all).map_err(|e| format!("{e:#}")));
    let results = results.as_ref().map_err(|e| anyhow!("{e}"))?;
    let (_, without, refusal) = results.iter().find(|(n, ..)| *n == name).context("no such wish")?;
    Ok(Seen::new(without, refusal))
}

fn all(f: &Fixture) -> Result<Results> {
    let mut results = Results::new();
    let strict = Pod::start(f, f.allowed(&f.shell(&stays()))?)?;
    for wish in WISHES {
        let line = wish.line.map_or_else(stays, str::to_owned);
        let out = strict.member(&f.image, &line, wish.flags).go(&f.stack)?;
        refused(&out, wish.words).with_context(|| wish.name)?;
        results.push((wish.name, String::new(), said(&out)));
    }
    let out = strict.member(&f.different_image, &stays(), &[]).go(&f.stack)?;
    refused(&out, &["policy denies", "image"])?;
    results.push(("image", String::new(), said(&out)));
    // What the policy names does run in the same pod, once.
    let asked = strict.member(&f.image, &stays(), &[]).detached();
    ensure!(asked.go(&f.stack)?.code == 0);
    let out = strict.member(&f.image, &stays(), &[]).go(&f.stack)?;
    refused(&out, &["instances"])?;
    results.push(("second", String::new(), said(&out)));
    asked.remove(&f.stack)?;
    strict.end()?;
    f.stack.leaves_nothing()?;

    // An image of its own: the policy's image runs, whatever the host offers.
    let workload = cella_tests::Workload::new(&f.stack, &f.different_image, &[], &["/bin/busybox"]);
    let workload = cella_tests::Workload {
        args: Vec::new(),
        ..workload
    };
    let free = Pod::start(f, f.allowed(&workload.container(ANYTHING))?)?;
    for (name, without, _) in &mut results {
        let wish = WISHES.iter().find(|wish| wish.name == *name);
        if matches!(*name, "host-path" | "mount" | "device") {
            *without = "no policy leaves it to the host; the same container without it ran".to_owned();
            continue;
        }
        let line = wish.and_then(|wish| wish.line).map_or_else(hello, str::to_owned);
        let out = free
            .member(&f.different_image, &line, wish.map_or(&[], |wish| wish.flags))
            .go(&f.stack)?;
        // ctr asks for all devices of its own machine with it, which the guest does not have: so much for later.
        let admitted = *name == "privileged" && !out.stderr.contains("policy denies");
        ensure!(
            out.code == 0 || admitted,
            "{name} under a policy that leaves it to the host: {out:?}"
        );
        *without = if out.code == 0 {
            "under a policy that leaves it to the host it ran".to_owned()
        } else {
            format!(
                "under a policy that leaves it to the host it was let in: {}",
                said(&out)
            )
        };
    }
    free.end()?;
    Ok(results)
}

fn left_out(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let serve = "echo served > /tmp/index.html; httpd -f -p 8080 -h /tmp";
    let filter = format!(
        "[[container.tmpfs]]\ndestination = \"/tmp\"\nsize-mib = 1\n[[container]]\nname = \"filter\"\nimage = {:?}\nimage-keys = []\n\
         args = [\"/bin/busybox\", \"sleep\", \"1000\"]\n[pod]\nforward-ports = [8080]\n",
        f.different_image
    );
    let pod = Pod::start(f, f.allowed(&f.shell(serve).container(&filter))?)?;
    let server = pod.member(&f.image, serve, &[]).detached();
    ensure!(server.go(&f.stack)?.code == 0);
    let guest = Guest::of(f)?;
    let shut = guest.forward(8080)?;
    ensure!(shut.is_none(), "the ingress is open: {shut:?}");
    let events = guest.api()?.events();
    let refusal = events
        .into_iter()
        .find(|text| text.contains("filter"))
        .context("no event names who is missing")?;
    let sandbox = format!("io.kubernetes.cri.sandbox-id={}", pod.sandbox.id);
    let filter = Run::new(
        &f.stack,
        &f.different_image,
        &pod.policy,
        &["/bin/busybox", "sleep", "1000"],
    )
    .flags(&[
        "--annotation",
        "io.kubernetes.cri.container-type=container",
        "--annotation",
        &sandbox,
    ])
    .detached();
    ensure!(filter.go(&f.stack)?.code == 0);
    let open = cella_tests::process::wait_until(std::time::Duration::from_secs(10), || guest.forward(8080))?;
    ensure!(open.contains("served"), "{open:?}");
    filter.remove(&f.stack)?;
    server.remove(&f.stack)?;
    pod.end()?;
    Ok(Seen::new(
        "with the filter beside it the same request reached the server",
        refusal,
    ))
}
