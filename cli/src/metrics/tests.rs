use std::collections::BTreeSet;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::*;
use crate::node::tests::{ABOUT, this_process, write_state};

const PAGE: &str = "# HELP cella_x_total What.\n# TYPE cella_x_total counter\ncella_x_total{call=\"a\\\"},b\"} 3\n\
                    # HELP cella_up Up.\n# TYPE cella_up gauge\ncella_up 1\n";

async fn metrics(parent: &std::path::Path) -> String {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: MetricsArgs,
    }
    let line = ["metrics", "--run-dir", parent.to_str().unwrap()];
    run(&<Line as clap::Parser>::parse_from(line).args).await.unwrap()
}

/// A shim that answers once with `page`, or never.
fn shim(dir: &std::path::Path, page: Option<&'static str>) {
    let listener = UnixListener::bind(dir.join("metrics.sock")).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Closing with something unread would reset the connection.
        let _ = stream.read(&mut [0; 512]).await.unwrap();
        match page {
            Some(page) => {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            None => std::future::pending().await,
        }
    });
}

#[tokio::test]
async fn pages_are_merged_and_a_hung_shim_costs_a_second() {
    let parent = tempfile::tempdir().unwrap();
    let me = Some(this_process());
    shim(&write_state(parent.path(), "a", ABOUT, me), Some(PAGE));
    shim(&write_state(parent.path(), "b", "{\"ready\": true}", me), Some(PAGE));
    for hung in ["c", "d", "e"] {
        shim(&write_state(parent.path(), hung, "{}", me), None);
    }
    std::fs::create_dir(parent.path().join("f")).unwrap();
    let begun = Instant::now();
    let text = metrics(parent.path()).await;
    assert!(begun.elapsed().as_secs() < 3, "{:?}", begun.elapsed());
    for line in [
        "cella_x_total{namespace=\"prod\",pod=\"llama-0\",id=\"aa\",call=\"a\\\"},b\"} 3\n",
        "cella_x_total{namespace=\"k8s.io\",pod=\"\",id=\"bb\",call=\"a\\\"},b\"} 3\n",
        "cella_up{namespace=\"prod\",pod=\"llama-0\",id=\"aa\"} 1\n",
        "cella_shim_up{namespace=\"prod\",pod=\"llama-0\",id=\"aa\"} 1\n",
        "cella_shim_up{namespace=\"k8s.io\",pod=\"\",id=\"cc\"} 0\n",
        "cella_node_pods{state=\"running\"} 2\n",
        "cella_node_pods{state=\"booting\"} 3\n",
        "cella_node_pods{state=\"incomplete\"} 1\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    check(&text);
}

#[test]
fn a_page_that_lies_spoils_nothing_but_itself() {
    let mut pages = Pages::default();
    let owner = Owner {
        namespace: "n\"\n".into(),
        pod: "p\\".into(),
        id: "i".into(),
    };
    pages.add(PAGE, &owner);
    let long = format!("# TYPE cella_y gauge\ncella_y{{a=\"{}\"}} 1\n", "x".repeat(9999));
    for page in [
        "cella_up 7\n",
        "# TYPE cella_up gauge\ncella_up{id=\"other\"} 1\ncella_up one\ncella_up\ncella_other 1\ncella_up{a=\"b\" 1\ncella_up{} 1\n",
        "# TYPE cella_up gauge\ncella_up{a=\"\u{1b}\"} 1\ncella_up 1\ncella_up 2\n",
        "# TYPE Cella gauge\nCella 1\n# TYPE cella_z histogram\ncella_z 1\n",
        "\u{0}\u{1}\u{2}",
        &long,
    ] {
        pages.add(page, &owner);
    }
    let text = pages.finish();
    check(&text);
    assert_eq!(text.matches("\ncella_up{").count(), 1, "{text}");
    assert!(
        text.contains("cella_up{namespace=\"n\\\"\",pod=\"p\\\\\",id=\"i\"} 1\n"),
        "{text}"
    );
    assert!(!text.contains("cella_z 1") && !text.contains("Cella "), "{text}");
}

#[tokio::test]
async fn the_output_file_is_replaced_in_one_step() {
    let parent = tempfile::tempdir().unwrap();
    let output = parent.path().join("cella.prom");
    let args = |dir: &std::path::Path| {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: MetricsArgs,
        }
        let line = [
            "metrics",
            "--run-dir",
            dir.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
        ];
        <Line as clap::Parser>::parse_from(line).args
    };
    assert_eq!(run(&args(&parent.path().join("none"))).await.unwrap(), "");
    assert!(std::fs::read_to_string(&output).unwrap().contains("cella_node_pods"));
}

/// What a scraper checks of a whole page.
fn check(text: &str) {
    let (mut families, mut series, mut family) = (BTreeSet::new(), BTreeSet::new(), "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap();
            assert!(families.insert(family), "{family} twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest.split(' ').next(), Some(family));
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(name.split('{').next(), Some(family), "{line}");
            assert!(series.insert(name) && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
