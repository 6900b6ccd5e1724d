//! `cellactl install` and `uninstall`: the configuration that a node's containerd needs, put in and taken out again.
//!
//! Programs and the guest image come with a package or by hand; this writes the files of `deploy/` and nothing else:
//! containerd's drop-in, the import of it in containerd's main file, the snapshotter's unit, the RuntimeClass, and a first
//! `/etc/cella/config.toml` where there is none. It shows the difference first and asks. What it writes and what stood there
//! before is recorded, before the first file is touched, in `/var/lib/cella/installed.json`; `uninstall` puts exactly that back
//! and refuses where somebody has changed a file since. No service is started or stopped: the last lines say what to run.

mod diff;
mod imports;
mod payload;
mod record;
mod target;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use self::imports::ImportsError;
use self::record::{Entry, Record, RecordError};
use self::target::{Target, TargetError};

/// `cellactl install`.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// Where the programs are: `bin` below it.
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    #[command(flatten)]
    common: CommonArgs,
}

/// `cellactl uninstall`.
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// Another root than `/`: a mounted image, or a directory for a trial.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Shows the difference and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// Does not ask.
    #[arg(long, short)]
    yes: bool,
    /// Also where files were changed by somebody else since the last install; what they wrote is lost.
    #[arg(long)]
    force: bool,
}

/// A file that is to change, as it is and as it will be; none where there is no file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    path: PathBuf,
    from: Option<String>,
    to: Option<String>,
}

/// Writes the configuration.
pub(crate) fn install(args: &InstallArgs) -> Result<String, InstallError> {
    let target = Target::new(&args.common.root);
    let former = Record::read(&target)?;
    let (mut changes, mut entries, mut kept, mut touched) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for file in payload::files(&args.prefix, &target)? {
        let now = target.read(&file.path)?;
        let known = former.as_ref().and_then(|record| record.entry(&file.path));
        if file.is_first_draft && now.is_some() {
            // The operator's own from its first day on.
            entries.extend(known.cloned());
            kept.push(file.path);
            continue;
        }
        let is_as_written = known.is_some_and(|known| now.as_ref() == Some(&known.written));
        let is_as_wanted = now.as_ref() == Some(&file.text);
        if known.is_some() && !is_as_written && !is_as_wanted && !file.is_patch {
            touched.push(file.path.clone());
        }
        let before = match known {
            // What stood there before the first install, not what an earlier release of ours wrote.
            Some(known) if is_as_written || !file.is_patch => known.before.clone(),
            // The operator's file as the operator has it: nothing of ours is in it that could be taken out.
            _ if file.is_patch && is_as_wanted => {
                entries.extend(known.cloned());
                continue;
            }
            _ => now.clone(),
        };
        entries.push(Entry {
            path: file.path.clone(),
            before,
            written: file.text.clone(),
            is_first_draft: file.is_first_draft,
        });
        if now.as_ref() != Some(&file.text) {
            changes.push(Change {
                path: file.path,
                from: now,
                to: Some(file.text),
            });
        }
    }
    refuse_touched(&args.common, touched)?;
    let mut text = diff::of(&changes);
    for path in &kept {
        text.push_str(&format!("{} is there and stays as it is\n", path.display()));
    }
    if changes.is_empty() {
        return Ok(format!("{text}nothing to change\n"));
    }
    if !agreed(&args.common, &mut text, "write these files?")? {
        return Ok(text);
    }
    let written = changes.iter().map(|change| change.path.as_path());
    let made = target.missing_parents(written.chain([Path::new(record::PATH)]));
    let mut directories = former.map(|record| record.directories).unwrap_or_default();
    directories.extend(made);
    Record::new(entries, directories).write(&target)?;
    apply(&target, &changes)?;
    text.push_str(&format!("wrote {} files\n\n{}", changes.len(), payload::NEXT));
    Ok(text)
}

/// Takes out what [`install`] wrote.
pub(crate) fn uninstall(args: &UninstallArgs) -> Result<String, InstallError> {
    let target = Target::new(&args.common.root);
    let Some(record) = Record::read(&target)? else {
        return Ok("nothing is installed\n".to_owned());
    };
    let (mut changes, mut left, mut touched) = (Vec::new(), Vec::new(), Vec::new());
    for entry in record.entries.iter().rev() {
        let now = target.read(&entry.path)?;
        if now == entry.before {
            continue;
        }
        if now.as_ref() != Some(&entry.written) && !args.common.force {
            if entry.is_first_draft {
                left.push(entry.path.clone());
            } else {
                touched.push(entry.path.clone());
            }
            continue;
        }
        changes.push(Change {
            path: entry.path.clone(),
            from: now,
            to: entry.before.clone(),
        });
    }
    refuse_touched(&args.common, touched)?;
    let mut text = diff::of(&changes);
    for path in &left {
        text.push_str(&format!(
            "{} was changed and stays; remove it by hand\n",
            path.display()
        ));
    }
    if !agreed(&args.common, &mut text, "take these out?")? {
        return Ok(text);
    }
    apply(&target, &changes)?;
    Record::remove(&target)?;
    for dir in record.directories.iter().rev() {
        target.remove_if_empty(dir);
    }
    text.push_str(&format!("took out {} files\n\n{}", changes.len(), payload::AFTER));
    Ok(text)
}

fn refuse_touched(args: &CommonArgs, touched: Vec<PathBuf>) -> Result<(), InstallError> {
    if touched.is_empty() || args.force {
        return Ok(());
    }
    let paths: Vec<_> = touched.iter().map(|path| path.display().to_string()).collect();
    Err(InstallError::Touched {
        paths: paths.join(", "),
    })
}

fn apply(target: &Target, changes: &[Change]) -> Result<(), InstallError> {
    for change in changes {
        match &change.to {
            Some(text) => target.write(&change.path, text)?,
            None => target.remove(&change.path)?,
        }
    }
    Ok(())
}

/// Whether to go on. Whoever is asked sees the text first, and then not again.
fn agreed(args: &CommonArgs, text: &mut String, question: &str) -> Result<bool, InstallError> {
    if args.dry_run {
        return Ok(false);
    }
    if args.yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(InstallError::Nobody);
    }
    let talk = |source| InstallError::Talk { source };
    let mut out = io::stdout().lock();
    write!(out, "{text}{question} [y/N] ")
        .and_then(|()| out.flush())
        .map_err(talk)?;
    text.clear();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(talk)?;
    let is_yes = matches!(answer.trim(), "y" | "Y" | "yes");
    if !is_yes {
        text.push_str("nothing was changed\n");
    }
    Ok(is_yes)
}

/// Why a node was not changed, or not wholly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InstallError {
    /// A file of the node's.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The record of the last install.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// containerd's main configuration.
    #[error(transparent)]
    Imports(#[from] ImportsError),
    /// Somebody else's changes would be lost.
    #[error(
        "changed since they were installed: {paths}; put them right by hand, or say --force and lose what is in them"
    )]
    Touched { paths: String },
    /// Nobody to ask.
    #[error("standard input is no terminal: say --yes, or --dry-run to see what would change")]
    Nobody,
    /// The question.
    #[error("asking")]
    Talk { source: io::Error },
}

#[cfg(test)]
mod tests;
