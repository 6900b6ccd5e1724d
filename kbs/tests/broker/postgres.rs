//! A PostgreSQL server of Debian's package, on a Unix socket in a temporary folder, run by a user without rights; it ends with
//! its value. Used by unit tests and by the benchmark too.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Debian's nobody and nogroup. PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;
/// Where a small disk is mounted.
const DISK: &str = "disk";
const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const PASSWORD: &str = "a-password-that-nobody-logs";

pub(crate) struct Postgres {
    dir: tempfile::TempDir,
    /// Beside the socket, for TLS.
    port: Option<u16>,
    /// Holds the mount namespace in which the server's files lie on a disk of their own.
    disk: Option<Child>,
    child: Option<Child>,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop("QUIT");
        if let Some(mut holder) = self.disk.take() {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

impl Postgres {
    /// A running server with an empty database.
    pub(crate) fn start() -> Self {
        let mut postgres = Self::made(None);
        postgres.resume();
        postgres
    }

    /// The same with the server's files on a file system of so many MiB, which nobody else sees. Root only.
    #[allow(dead_code, reason = "not every user of this file needs it")]
    pub(crate) fn on_small_disk(mib: u32) -> Self {
        assert!(is_root(), "a disk for the test is mounted as root");
        let mut postgres = Self::made(Some(mib));
        postgres.resume();
        postgres
    }

    /// Takes all that is left of the small disk, to the last byte.
    #[allow(dead_code, reason = "not every user of this file needs it")]
    pub(crate) fn fill(&self) {
        let script = "cat /dev/zero >\"$0\" 2>/dev/null; test -s \"$0\"";
        let mut command = self.command(Path::new("sh"));
        let filled = command.args(["-c", script]).arg(self.filler()).status().unwrap();
        assert!(filled.success());
    }

    /// Gives it back.
    #[allow(dead_code, reason = "not every user of this file needs it")]
    pub(crate) fn free(&self) {
        let mut command = self.command(Path::new("rm"));
        assert!(command.arg(self.filler()).status().unwrap().success());
    }

    /// The same on 127.0.0.1 too, with this certificate and key; on that side TLS only.
    #[allow(dead_code, reason = "not every user of this file needs it")]
    pub(crate) fn with_tls(certificate: &str, key: &str) -> Self {
        let mut postgres = Self::made(None);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        postgres.port = Some(taken.local_addr().unwrap().port());
        drop(taken);
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = postgres.data().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            own(&path);
        }
        std::fs::write(
            postgres.data().join("pg_hba.conf"),
            "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
        postgres.resume();
        postgres
    }

    fn made(small_disk: Option<u32>) -> Self {
        let dir = tempfile::Builder::new().prefix("cella-pg").tempdir().unwrap();
        own(dir.path());
        let disk = small_disk.map(|mib| mount(&dir.path().join(DISK), mib));
        let postgres = Self {
            dir,
            port: None,
            disk,
            child: None,
        };
        let password = postgres.dir.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        own(&password);
        let made = postgres
            .server("initdb")
            .args([
                "--wal-segsize=1",
                "--auth=scram-sha-256",
                "--username=kbs",
                "--encoding=UTF8",
                "--locale=C",
                "--pwfile",
            ])
            .arg(&password)
            .arg(postgres.data())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres
    }

    /// Starts the server that was stopped, and waits until it answers.
    pub(crate) fn resume(&mut self) {
        let mut command = self.server("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path());
        match self.port {
            None => command.args(["-c", "listen_addresses="]),
            Some(port) => command.args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "ssl=on",
                "-p",
                &port.to_string(),
            ]),
        };
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut ready = self.server("pg_isready");
            ready.arg("-q").arg("-h").arg(self.dir.path());
            ready.args(self.port.map(|port| format!("-p{port}")));
            if ready.status().unwrap().success() {
                return;
            }
            assert!(Instant::now() < deadline, "PostgreSQL does not answer");
        }
    }

    /// Stops the server: by `INT` in good order, by `QUIT` as a crash does.
    pub(crate) fn stop(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
            child.wait().unwrap();
        }
    }

    /// For the file that `postgres.connection` names.
    pub(crate) fn connection(&self) -> String {
        let host = self.dir.path().display();
        format!("host={host} user=kbs dbname=postgres\npassword={PASSWORD}\n")
    }

    /// The same over TLS, to a name for 127.0.0.1.
    #[allow(dead_code, reason = "not every user of this file needs it")]
    pub(crate) fn connection_over_tls(&self, name: &str) -> String {
        let port = self.port.unwrap();
        format!("host={name} hostaddr=127.0.0.1 port={port} user=kbs dbname=postgres password={PASSWORD}")
    }

    /// What `psql` says to a statement.
    #[allow(dead_code, reason = "not every user of this file needs it")]
    pub(crate) fn ask(&self, statement: &str) -> String {
        let output = self
            .server("psql")
            .env("PGPASSWORD", PASSWORD)
            .args(["-XAtq", "-U", "kbs", "-d", "postgres", "-c", statement, "-h"])
            .arg(self.dir.path())
            .args(self.port.map(|port| format!("-p{port}")))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn data(&self) -> PathBuf {
        let folder = self.dir.path();
        match self.disk {
            None => folder.join("data"),
            Some(_) => folder.join(DISK).join("data"),
        }
    }

    #[allow(dead_code, reason = "not every user of this file needs it")]
    fn filler(&self) -> PathBuf {
        self.dir.path().join(DISK).join("filler")
    }

    fn server(&self, name: &str) -> Command {
        self.command(&programs().join(name))
    }

    /// A command that sees the server's files and has the server's rights.
    fn command(&self, program: &Path) -> Command {
        let mut command = match &self.disk {
            None => Command::new(program),
            Some(holder) => {
                let mut command = Command::new("nsenter");
                let (target, nobody) = (holder.id().to_string(), NOBODY.to_string());
                command.args(["--mount", "--target", &target, "--setuid", &nobody, "--setgid", &nobody]);
                command.arg("--").arg(program);
                command
            }
        };
        command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if is_root() && self.disk.is_none() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

/// The newest version that is installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.retain(|folder| folder.join("initdb").exists());
    let number = |folder: &PathBuf| {
        let name = folder.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        name.and_then(|name| name.parse::<u32>().ok())
    };
    folders.sort_by_key(number);
    folders
        .pop()
        .expect("PostgreSQL's server is not installed: scripts/setup does that")
}

/// Mounts a small file system in a namespace of its own, which lives as long as the process that is given back.
fn mount(at: &Path, mib: u32) -> Child {
    std::fs::create_dir(at).unwrap();
    let options = format!("size={mib}m,mode=700,uid={NOBODY},gid={NOBODY}");
    let script = "mount -t tmpfs -o \"$1\" none \"$0\" && echo mounted && exec sleep 600";
    let mut holder = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(at)
        .arg(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert_eq!(said, "mounted\n");
    holder
}

fn own(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}
