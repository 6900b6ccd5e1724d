//! The broker's audit log: fetched line by line, and checked without the broker.
//!
//! Each line carries `seq`, from 0 without gaps, and `prev`, the SHA-256 of the line before it without its line feed (zeros
//! before the first). A copy that grew with each fetch shows that a broker has not written its log anew: what it sends
//! must follow from what is there.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::digest;
use serde::Deserialize;

use super::BrokerArgs;
use super::client::{AdminClient, ClientError};

/// What to do with the log.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AuditCommand {
    /// Fetch the log, or what a copy still lacks, and check that it follows.
    Fetch(FetchArgs),
    /// Check a copy from its first line to its last, offline; prints its head.
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct FetchArgs {
    /// The copy: made if it is not there, appended to if it is.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The log or a copy of it.
    file: PathBuf,
    /// SHA-256 of a line that must be in it: a head that was printed earlier.
    #[arg(long, value_name = "HEX")]
    contains: Option<String>,
}

pub(super) async fn run(command: AuditCommand) -> Result<String, AuditError> {
    match command {
        AuditCommand::Verify(args) => {
            let mut found = args.contains.is_none();
            let chain = walk(&args.file, |sha256| found |= args.contains.as_deref() == Some(sha256))?;
            match args.contains {
                Some(wanted) if !found => Err(AuditError::Missing { wanted }),
                _ => Ok(chain.say("ok")),
            }
        }
        AuditCommand::Fetch(args) => fetch(&args).await,
    }
}

async fn fetch(args: &FetchArgs) -> Result<String, AuditError> {
    let client = AdminClient::new(&args.broker)?;
    let mut chain = if args.out.exists() {
        walk(&args.out, |_| {})?
    } else {
        Chain::new()
    };
    let before = chain.lines;
    let failed = |source| AuditError::File {
        path: args.out.clone(),
        source,
    };
    let mut out = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&args.out)
        .map_err(failed)?;
    loop {
        let page = client
            .get_bytes(&format!("cella-audit?from={}", chain.lines), MAX_PAGE)
            .await?;
        if page.is_empty() {
            break;
        }
        for line in page.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").ok_or(AuditError::Unfinished)?;
            chain.follow(line)?;
        }
        // Only what follows is kept.
        out.write_all(&page).map_err(failed)?;
    }
    out.sync_all().map_err(failed)?;
    Ok(chain.say(&format!("{} new", chain.lines - before)))
}

/// Follows a file from its first line to its last; tells `seen` each line's digest.
fn walk(path: &Path, mut seen: impl FnMut(&str)) -> Result<Chain, AuditError> {
    let failed = |source| AuditError::File {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut chain = Chain::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        if read == 0 {
            return Ok(chain);
        }
        if line.pop() != Some(b'\n') {
            return Err(AuditError::Unfinished);
        }
        chain.follow(&line)?;
        seen(&chain.sha256);
    }
}

struct Chain {
    lines: u64,
    sha256: String,
}

impl Chain {
    fn new() -> Self {
        Self {
            lines: 0,
            sha256: "0".repeat(64),
        }
    }

    fn follow(&mut self, line: &[u8]) -> Result<(), AuditError> {
        #[derive(Deserialize)]
        struct Link {
            seq: u64,
            prev: String,
        }
        let broken = || AuditError::Broken { line: self.lines + 1 };
        let link: Link = serde_json::from_slice(line).map_err(|_| broken())?;
        if link.seq != self.lines || link.prev != self.sha256 {
            return Err(broken());
        }
        self.lines += 1;
        self.sha256 = hex::encode(digest::digest(&digest::SHA256, line));
        Ok(())
    }

    fn say(&self, word: &str) -> String {
        format!("{word}: {} lines, head {}\n", self.lines, self.sha256)
    }
}

/// Why the log is not fetched, or not sound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AuditError {
    /// The copy.
    #[error("reading or writing {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// The broker.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Somebody changed a line, or took one out, or put one in.
    #[error("the chain is broken at line {line}: it, or the line before it, is not what was written")]
    Broken { line: u64 },
    /// A line without its end.
    #[error("the last line is unfinished")]
    Unfinished,
    /// It is another log, or one that was cut.
    #[error("no line has the digest {wanted}: lines were cut off, or this is another log")]
    Missing { wanted: String },
}

/// The broker's pages have a MiB and a line.
const MAX_PAGE: usize = 2 << 20;
const MAX_LINE: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: u64) -> String {
        let mut chain = Chain::new();
        let mut text = String::new();
        for seq in 0..lines {
            let line = format!(r#"{{"seq":{seq},"event":"release","prev":"{}"}}"#, chain.sha256);
            chain.follow(line.as_bytes()).unwrap();
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    fn verify(text: &str, contains: Option<&str>) -> Result<String, AuditError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let command = AuditCommand::Verify(VerifyArgs {
            file: file.path().to_owned(),
            contains: contains.map(str::to_owned),
        });
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(run(command))
    }

    #[test]
    fn changes_are_found_without_the_broker() {
        let good = log(4);
        let said = verify(&good, None).unwrap();
        assert!(said.starts_with("ok: 4 lines, head "), "{said}");
        let lines: Vec<&str> = good.split_inclusive('\n').collect();
        for bad in [
            good.replacen("release", "attest", 1),
            [lines[0], lines[2], lines[3]].concat(),
            [lines[1], lines[0], lines[2], lines[3]].concat(),
            [lines[0], lines[0]].concat(),
        ] {
            assert!(matches!(verify(&bad, None), Err(AuditError::Broken { .. })), "{bad}");
        }
        assert!(matches!(verify(good.trim_end(), None), Err(AuditError::Unfinished)));
    }

    #[test]
    fn a_cut_is_found_by_a_head_of_before() {
        let good = log(4);
        let said = verify(&good, None).unwrap();
        let head = said.trim_end().rsplit(' ').next().unwrap();
        assert!(verify(&good, Some(head)).is_ok());
        let lines: Vec<&str> = good.split_inclusive('\n').collect();
        let cut = lines[..3].concat();
        assert!(verify(&cut, None).is_ok());
        assert!(matches!(verify(&cut, Some(head)), Err(AuditError::Missing { .. })));
    }
}
