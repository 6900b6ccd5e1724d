//! Judges a run of critest with cella beside the same run with runc.
//!
//! Reads ginkgo's JSON reports and `tests/conformance/skips.toml`. Nothing is left to chance: a failure that is not listed fails the run, and
//! so does a listed test that passes, a listed name that no test has, and a test that critest skips with cella but runs with runc.
use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed, for this reason.
    Failed(String),
    /// critest itself left it out, for this reason: the host or the runtime lacks what it tests.
    Skipped(String),
    /// It was not asked for: a benchmark, or outside the focus.
    NotSelected,
}

/// Test names and how they ended.
pub type Report = BTreeMap<String, Outcome>;

/// Why a test need not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// It wants a namespace of the host's, which a confidential guest does not share.
    HostNamespace,
    /// It wants files of the host in the guest, or the guest's on the host.
    HostPath,
    /// It wants a device of the host's.
    HostDevice,
    /// It tests AppArmor or SELinux of the host.
    HostLsm,
    /// runc fails it on the same machine and containerd.
    RuncFailsHere,
}

/// One listed test.
#[derive(Clone, Debug)]
pub struct Skip {
    /// Why, as a kind.
    pub category: Category,
    /// Why, in a sentence.
    pub reason: String,
    /// The containerd lines on which it holds; all if empty.
    pub containerd: Vec<String>,
}

/// The listed tests by name.
pub type Skips = BTreeMap<String, Skip>;

/// What a pair of runs comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Tests that passed with cella.
    pub passed: usize,
    /// Tests that critest left out, or that are listed and failed.
    pub skipped: usize,
    /// Tests that passed with runc.
    pub runc_passed: usize,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

/// Reads a report that `--ginkgo.json-report` wrote.
///
/// # Errors
/// The file cannot be read, or is not such a report.
pub fn read_report(path: &Path) -> Result<Report> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse_report(&text).with_context(|| format!("{} is not a ginkgo report", path.display()))
}

fn parse_report(text: &str) -> Result<Report> {
    let suites: Vec<Value> = serde_json::from_str(text)?;
    let mut report = Report::new();
    for suite in &suites {
        for spec in suite
            .get("SpecReports")
            .and_then(Value::as_array)
            .context("SpecReports")?
        {
            let leaf = text_of(spec, "LeafNodeType");
            let state = text_of(spec, "State");
            if leaf != "It" {
                if !matches!(state, "passed" | "") {
                    bail!("{leaf} of the suite {state}: {}", message(spec));
                }
                continue;
            }
            let texts = spec.get("ContainerHierarchyTexts").and_then(Value::as_array);
            let mut words: Vec<&str> = texts.into_iter().flatten().filter_map(Value::as_str).collect();
            words.push(text_of(spec, "LeafNodeText"));
            let name = words.join(" ");
            let outcome = match (state, message(spec)) {
                ("passed", _) => Outcome::Passed,
                ("skipped", "") => Outcome::NotSelected,
                ("skipped", why) => Outcome::Skipped(why.to_owned()),
                (_, why) => Outcome::Failed(format!("{state}: {why}")),
            };
            if report.insert(name.clone(), outcome).is_some() {
                bail!("two tests are called {name:?}");
            }
        }
    }
    Ok(report)
}

fn text_of<'v>(spec: &'v Value, key: &str) -> &'v str {
    spec.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn message(spec: &Value) -> &str {
    spec.pointer("/Failure/Message")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Reads the list of tests that need not pass.
///
/// # Errors
/// The file cannot be read, or an entry lacks a name, a known category or a reason.
pub fn read_skips(path: &Path) -> Result<Skips> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse_skips(&text).with_context(|| format!("in {}", path.display()))
}

fn parse_skips(text: &str) -> Result<Skips> {
    let file: toml::Table = toml::from_str(text)?;
    let mut skips = Skips::new();
    for entry in file.get("skip").and_then(toml::Value::as_array).into_iter().flatten() {
        let field = |key: &str| {
            entry
                .get(key)
                .and_then(toml::Value::as_str)
                .map(str::trim)
                .filter(|v| !v.is_empty())
        };
        let test = field("test").context("an entry without `test`")?.to_owned();
        let category = match field("category").with_context(|| format!("{test:?} has no category"))? {
            "host-namespace" => Category::HostNamespace,
            "host-path" => Category::HostPath,
            "host-device" => Category::HostDevice,
            "host-lsm" => Category::HostLsm,
            "runc-fails-here" => Category::RuncFailsHere,
            other => bail!("{test:?}: no category {other:?}"),
        };
        let reason = field("reason")
            .with_context(|| format!("{test:?} has no reason"))?
            .to_owned();
        let lines = entry
            .get("containerd")
            .and_then(toml::Value::as_array)
            .into_iter()
            .flatten();
        let containerd = lines.filter_map(toml::Value::as_str).map(str::to_owned).collect();
        let skip = Skip {
            category,
            reason,
            containerd,
        };
        if skips.insert(test.clone(), skip).is_some() {
            bail!("{test:?} is listed twice");
        }
    }
    Ok(skips)
}

/// Compares the two runs on one containerd with the list.
#[must_use]
pub fn judge(line: &str, runc: &Report, cella: &Report, skips: &Skips) -> Verdict {
    let mut verdict = Verdict {
        runc_passed: runc.values().filter(|o| **o == Outcome::Passed).count(),
        ..Verdict::default()
    };
    let listed = |name: &str| {
        let skip = skips.get(name)?;
        (skip.containerd.is_empty() || skip.containerd.iter().any(|l| l == line)).then_some(skip)
    };
    for (name, outcome) in cella {
        let with_runc = runc.get(name).unwrap_or(&Outcome::NotSelected);
        match (outcome, listed(name)) {
            (Outcome::NotSelected, _) => {}
            (Outcome::Passed, None) => verdict.passed += 1,
            (Outcome::Passed, Some(_)) => verdict.problems.push(format!("listed, but it passes: {name}")),
            (Outcome::Failed(_) | Outcome::Skipped(_), Some(skip)) => {
                if skip.category == Category::RuncFailsHere && *with_runc == Outcome::Passed {
                    verdict
                        .problems
                        .push(format!("listed as failing with runc too, but runc passes: {name}"));
                } else {
                    verdict.skipped += 1;
                }
            }
            (Outcome::Skipped(why), None) => {
                if matches!(with_runc, Outcome::Skipped(_)) {
                    verdict.skipped += 1;
                } else {
                    verdict
                        .problems
                        .push(format!("critest skips it, but not with runc: {name}: {why}"));
                }
            }
            (Outcome::Failed(why), None) => verdict.problems.push(format!("{name}: {why}")),
        }
    }
    for name in skips.keys().filter(|name| !cella.contains_key(*name)) {
        verdict
            .problems
            .push(format!("listed, but critest has no such test: {name}"));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(tests: &[(&str, Outcome)]) -> Report {
        tests.iter().map(|(n, o)| ((*n).to_owned(), o.clone())).collect()
    }

    fn failed() -> Outcome {
        Outcome::Failed("failed: no".to_owned())
    }

    fn absent() -> Outcome {
        Outcome::Skipped("AppArmor is disabled".to_owned())
    }

    fn skips(category: &str) -> Skips {
        parse_skips(&format!(
            "[[skip]]\ntest = \"a\"\ncategory = \"{category}\"\nreason = \"So it is.\"\n"
        ))
        .unwrap()
    }

    #[test]
    fn a_ginkgo_report_gives_each_test_its_whole_name_and_state() {
        let text = r#"[{"SpecReports": [
            {"LeafNodeType": "BeforeSuite", "State": "passed"},
            {"ContainerHierarchyTexts": ["[k8s.io] Networking", "dns"], "LeafNodeType": "It", "LeafNodeText": "works", "State": "passed"},
            {"ContainerHierarchyTexts": ["x"], "LeafNodeType": "It", "LeafNodeText": "y", "State": "timedout", "Failure": {"Message": "slow"}},
            {"ContainerHierarchyTexts": null, "LeafNodeType": "It", "LeafNodeText": "s", "State": "skipped", "Failure": {"Message": "no LSM"}},
            {"LeafNodeType": "It", "LeafNodeText": "benchmark", "State": "skipped"}]}]"#;
        let wanted = report(&[
            ("[k8s.io] Networking dns works", Outcome::Passed),
            ("x y", Outcome::Failed("timedout: slow".to_owned())),
            ("s", Outcome::Skipped("no LSM".to_owned())),
            ("benchmark", Outcome::NotSelected),
        ]);
        assert_eq!(parse_report(text).unwrap(), wanted);
    }

    #[test]
    fn a_suite_that_could_not_start_is_no_report() {
        let text = r#"[{"SpecReports": [{"LeafNodeType": "BeforeSuite", "State": "failed", "Failure": {"Message": "no socket"}}]}]"#;
        assert!(parse_report(text).unwrap_err().to_string().contains("no socket"));
    }

    #[test]
    fn a_listed_test_needs_a_known_category_and_a_reason() {
        for text in [
            "[[skip]]\ntest = \"a\"\ncategory = \"host-path\"\n",
            "[[skip]]\ntest = \"a\"\ncategory = \"hard\"\nreason = \"x\"\n",
            "[[skip]]\ncategory = \"host-path\"\nreason = \"x\"\n",
            "[[skip]]\ntest = \"a\"\nreason = \"x\"\n",
        ] {
            assert!(parse_skips(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_failure_that_is_not_listed_is_a_problem() {
        let verdict = judge(
            "2.1",
            &report(&[("a", Outcome::Passed)]),
            &report(&[("a", failed())]),
            &Skips::new(),
        );
        assert_eq!((verdict.passed, verdict.skipped, verdict.runc_passed), (0, 0, 1));
        assert_eq!(verdict.problems, ["a: failed: no"]);
    }

    #[test]
    fn a_listed_test_that_passes_or_does_not_exist_is_a_problem() {
        let passes = report(&[("a", Outcome::Passed)]);
        let verdict = judge("2.1", &passes, &passes, &skips("host-path"));
        assert_eq!(verdict.problems, ["listed, but it passes: a"]);
        let verdict = judge("2.1", &Report::new(), &Report::new(), &skips("host-path"));
        assert_eq!(verdict.problems, ["listed, but critest has no such test: a"]);
    }

    #[test]
    fn runc_must_really_fail_what_is_listed_as_failing_with_runc() {
        let (passes, fails) = (report(&[("a", Outcome::Passed)]), report(&[("a", failed())]));
        assert_eq!(
            judge("2.1", &passes, &fails, &skips("runc-fails-here")).problems.len(),
            1
        );
        assert_eq!(judge("2.1", &fails, &fails, &skips("runc-fails-here")).skipped, 1);
        assert_eq!(judge("2.1", &passes, &fails, &skips("host-path")).skipped, 1);
    }

    #[test]
    fn what_critest_skips_must_be_skipped_with_runc_too_or_listed() {
        let (passes, skipped) = (report(&[("a", Outcome::Passed)]), report(&[("a", absent())]));
        assert_eq!(judge("2.1", &passes, &skipped, &Skips::new()).problems.len(), 1);
        assert_eq!(judge("2.1", &skipped, &skipped, &Skips::new()).skipped, 1);
        assert_eq!(judge("2.1", &passes, &skipped, &skips("host-path")).skipped, 1);
    }

    #[test]
    fn an_entry_holds_on_the_lines_that_it_names_only() {
        let text = "[[skip]]\ntest = \"a\"\ncategory = \"host-path\"\nreason = \"x\"\ncontainerd = [\"2.0\"]\n";
        let (skips, fails) = (parse_skips(text).unwrap(), report(&[("a", failed())]));
        assert_eq!(judge("2.0", &fails, &fails, &skips).problems.len(), 0);
        assert_eq!(judge("2.1", &fails, &fails, &skips).problems.len(), 1);
    }
}
