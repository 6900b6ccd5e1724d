//! `cellactl metrics`: the metrics of every shim on this node as one page of Prometheus text.
//!
//! Each shim is asked at the same time and for at most a second, so one that hangs costs its own samples and no more. Whose a
//! sample is, is said by this program (labels `namespace`, `pod`, `id`) and not by the shim: a page that sets them is not believed.

mod page;

use std::path::PathBuf;

use self::page::{Owner, Pages};
use crate::files::{self, FileError};
use crate::node::{NodeArgs, NodeError, Phase, Pod, scrape};

/// `cellactl metrics`.
#[derive(Debug, clap::Args)]
pub(crate) struct MetricsArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Writes the page to a file in one step, for the textfile collector of node_exporter, and prints nothing.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The page.
pub(crate) async fn run(args: &MetricsArgs) -> Result<String, MetricsError> {
    let pods = args.node.pods()?;
    let mut asked = tokio::task::JoinSet::new();
    for (index, pod) in pods.iter().enumerate() {
        let dir = pod.dir.clone();
        asked.spawn(async move { (index, scrape(&dir).await.ok()) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(index, _)| *index);
    let text = merged(pods.iter().zip(answers.iter().map(|(_, page)| page.as_deref())));
    match &args.output {
        None => Ok(text),
        Some(path) => {
            files::write(path, text.as_bytes())?;
            Ok(String::new())
        }
    }
}

fn merged<'a>(answers: impl Iterator<Item = (&'a Pod, Option<&'a str>)>) -> String {
    let mut pages = Pages::default();
    let mut phases = [
        Phase::Booting,
        Phase::Running,
        Phase::Dead,
        Phase::Incomplete,
        Phase::Unreadable,
    ]
    .map(|phase| (phase, 0_u32));
    for (pod, page) in answers {
        for (phase, pods) in &mut phases {
            *pods += u32::from(*phase == pod.phase());
        }
        let owner = owner(pod);
        // A directory that is still being made has no socket yet; one whose VM runs should answer.
        if matches!(pod.phase(), Phase::Running | Phase::Booting) || page.is_some() {
            pages.own(UP, &owner, u8::from(page.is_some()));
        }
        if let Some(page) = page {
            pages.add(page, &owner);
        }
    }
    let mut text = pages.finish();
    text.push_str("# HELP cella_node_pods Pods of this node by state.\n# TYPE cella_node_pods gauge\n");
    for (phase, pods) in phases {
        text.push_str(&format!("cella_node_pods{{state=\"{}\"}} {pods}\n", phase.as_str()));
    }
    text
}

fn owner(pod: &Pod) -> Owner {
    match &pod.state {
        Ok(state) => Owner {
            namespace: match state.pod_namespace.as_str() {
                "" => state.namespace.clone(),
                namespace => namespace.to_owned(),
            },
            pod: state.pod_name.clone(),
            id: state.id.clone(),
        },
        Err(_) => Owner {
            id: pod.dir_name.clone(),
            ..Owner::default()
        },
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MetricsError {
    /// The run directories.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The output file.
    #[error(transparent)]
    File(#[from] FileError),
}

const UP: (&str, &str) = (
    "cella_shim_up",
    "Whether the pod's shim gave its metrics within a second.",
);

#[cfg(test)]
mod tests;
