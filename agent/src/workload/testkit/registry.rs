//! Debian's docker-registry as a process of the test's own.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use cella_oci::{Digest, Registry};

/// A registry on a port of its own; it ends with the test.
pub(crate) struct TestRegistry {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl TestRegistry {
    /// Starts it and waits until it says that it listens.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yml");
        let storage = folder.path().join("storage");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("docker-registry is installed");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = lines.find_map(|line| {
            let line = line.unwrap();
            let (_, address) = line.split_once("listening on 127.0.0.1:")?;
            let digits: String = address.chars().take_while(char::is_ascii_digit).collect();
            Some(digits.parse().unwrap())
        });
        // Its pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            folder,
            port: listening.expect("the registry listens"),
        }
    }

    pub(crate) fn client(&self) -> Registry {
        let origin = format!("http://127.0.0.1:{}", self.port).parse().unwrap();
        Registry::new(origin, None, "localhost:5000").unwrap()
    }

    /// Where the registry keeps a blob or a manifest; it does not look whether somebody changes it.
    pub(crate) fn file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let blobs = self.folder.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(&hex).join("data")
    }

    /// Changes a stored blob.
    pub(crate) fn tamper(&self, digest: &Digest, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.file(digest);
        let mut bytes = std::fs::read(&file).unwrap();
        change(&mut bytes);
        std::fs::write(file, bytes).unwrap();
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
