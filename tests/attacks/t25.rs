//! T25: which parts of a model are read, and when.
use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use cella_tests::{
    Fixture,
    process::{succeed, wait_until},
    registry,
};

use crate::attack::{Attack, Ground, On, Seen, Threat};

pub(crate) const THREAT: Threat = Threat {
    number: 25,
    title: "Size and access pattern on host storage",
    attacks: &[Attack {
        name: "a_trace_of_the_models_reads",
        tried: "the registry keeps a trace of the requests of two pods that read different parts of one model, and of what comes later",
        on: On::Machine,
        run: trace,
    }],
    open: &[],
};

/// Requests of a pod for the model's layers, method and path, and how many of them came before the container ran.
fn requests(f: &Fixture, read: &str) -> Result<(Vec<String>, usize)> {
    let line = format!(
        "{{ {read}; }} > /dev/null; echo first; sleep 2; {{ {read}; }} > /dev/null; echo second; sleep 1000 & wait"
    );
    let policy = f.allowed(&f.with_model(&line))?;
    let run = f.start(&policy, &line);
    let output = f.stack.path(&f.stack.fresh("trace"));
    let mark = f.stack.mark()?;
    let mut ctr = run.spawn(&f.stack, &output)?;
    let mut says = |word: &str| {
        wait_until(Duration::from_secs(120), || {
            let text = fs::read_to_string(&output).unwrap_or_default();
            ensure!(ctr.try_wait()?.is_none(), "{text}");
            Ok(text.contains(word).then_some(()))
        })
    };
    let layers = registry::layers(&f.stack, &f.model)?;
    let seen = || -> Result<Vec<String>> {
        let log = f.stack.registry_since(mark)?;
        let of_model = log
            .lines()
            .filter(|line| layers.iter().any(|layer| line.contains(layer)));
        Ok(of_model
            .filter_map(|line| Some(line.split('"').nth(1)?.to_owned()))
            .collect())
    };
    says("first")?;
    let before = seen()?.len();
    says("second")?;
    let all = seen()?;
    run.remove(&f.stack)?;
    ctr.wait()?;
    Ok((all, before))
}

fn trace(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let (one, before_one) = requests(f, "head -c 4096 /models/demo/demo.gguf")?;
    g.leaves_nothing()?;
    let (two, before_two) = requests(
        f,
        "tail -c 4096 /models/demo/demo.gguf; sha256sum /models/demo/demo.gguf",
    )?;
    ensure!(!one.is_empty() && one == two, "{one:?} and {two:?}");
    ensure!(
        (before_one, before_two) == (one.len(), two.len()),
        "requests came after the model was there"
    );
    // A volume that is fetched on demand would ask for parts.
    let layer = registry::layers(&f.stack, &f.model)?
        .into_iter()
        .next()
        .context("layer")?;
    let mark = f.stack.mark()?;
    for range in ["0-4095", "1048576-1052671"] {
        let url = format!("https://{}/v2/models/demo/blobs/{layer}", f.stack.var("REGISTRY"));
        let mut curl = std::process::Command::new("curl");
        curl.args([
            "-sf",
            "-r",
            range,
            "--cacert",
            f.stack.var("REGISTRY_CA"),
            "-o",
            "/dev/null",
            &url,
        ]);
        succeed(&mut curl, Duration::from_secs(30))?;
    }
    let parts = f.stack.registry_since(mark)?;
    let partial = parts
        .lines()
        .filter(|line| line.contains(&layer) && line.contains(" 206 "))
        .count();
    ensure!(partial == 2, "{parts}");
    Ok(Seen::new(
        "a client that fetches parts on demand leaves one line for each part, with its size, in the same trace",
        format!(
            "both traces are the same: {}, all before the container ran. The size stays visible",
            one.join(", ")
        ),
    ))
}
