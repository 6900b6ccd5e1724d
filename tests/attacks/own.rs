//! A key broker of an attack's own, for configurations that the stack's has not: the same program, on a port and in a folder of its own.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cella_tests::{
    Fixture,
    process::{succeed, wait_until},
};

use crate::broker::Broker;

/// The broker; it is killed when it is not needed any more.
pub(crate) struct Own {
    process: Child,
    folder: PathBuf,
    url: String,
    program: String,
}

impl Own {
    /// Starts one that knows a simulated root, with further lines at the top of its configuration.
    pub(crate) fn start(f: &Fixture, simulated_root: &Path, lines: &str) -> Result<Self> {
        let folder = f.stack.path(&f.stack.fresh("own"));
        let program = format!("{}/cella-kbs", f.stack.var("BIN"));
        let mut init = Command::new(&program);
        init.args(["init", "--name", "127.0.0.1", "--listen", "127.0.0.1:0", "--dir"])
            .arg(&folder);
        succeed(
            init.arg("--simulated-root").arg(simulated_root),
            Duration::from_secs(20),
        )?;
        let config = folder.join("config.toml");
        fs::write(&config, format!("{lines}\n{}", fs::read_to_string(&config)?))?;
        let log = fs::File::create(folder.join("log"))?;
        let mut own = Self {
            process: Command::new(&program)
                .args(["serve", "--config"])
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .context("cella-kbs")?,
            url: String::new(),
            program,
            folder,
        };
        let address = wait_until(Duration::from_secs(20), || {
            ensure!(
                own.process.try_wait()?.is_none(),
                "{}",
                fs::read_to_string(own.folder.join("log"))?
            );
            Ok(fs::read_to_string(own.folder.join("state/address"))
                .ok()
                .filter(|text| !text.is_empty()))
        })?;
        own.url = format!("https://{}", address.trim());
        Ok(own)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Result<Broker> {
        Broker::at(&self.url, &self.file("ca.pem"))
    }

    /// Runs an admin command of `cellactl kbs` against it.
    pub(crate) fn admin(&self, args: &[&str]) -> Result<String> {
        let cellactl = Path::new(&self.program).with_file_name("cellactl");
        let mut command = Command::new(cellactl);
        command.arg("kbs").args(args).args(["--url", &self.url]);
        command
            .arg("--ca")
            .arg(self.file("ca.pem"))
            .arg("--admin-key")
            .arg(self.file("admin.key"));
        succeed(&mut command, Duration::from_secs(60))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
