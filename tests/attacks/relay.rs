//! A man in the middle between guest and broker: ends TLS with a certificate that he has, reads every request and answer, may change a
//! request, and passes them on.
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use cella_tests::{Stack, process::succeed};
use rustls::{ClientConnection, RootCertStore, ServerConnection, StreamOwned, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Changes a request's bytes, without changing their number.
pub(crate) type Change = dyn Fn(&mut Vec<u8>) + Send + Sync;

/// The relay; it listens until it is dropped.
pub(crate) struct Relay {
    port: u16,
    /// Everything that passed, in the clear, as the man in the middle reads it.
    heard: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
}

/// A certificate with its key.
pub(crate) struct Identity {
    chain: PathBuf,
    key: PathBuf,
}

impl Identity {
    /// The broker's own, stolen.
    pub(crate) fn stolen(stack: &Stack) -> Self {
        let folder = Path::new(stack.var("STATE")).join("kbs");
        Self {
            chain: folder.join("server.pem"),
            key: folder.join("server.key"),
        }
    }

    /// One of an authority of the attacker's; gives the authority's certificate as well.
    pub(crate) fn own(stack: &Stack) -> Result<(Self, PathBuf)> {
        let folder = stack.path(&stack.fresh("mitm"));
        fs::create_dir(&folder)?;
        let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj '/CN=attacker' -keyout ca.key -out ca.pem && \
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=broker' -keyout key.pem -out csr && \
            printf 'basicConstraints=CA:FALSE\\nsubjectAltName=DNS:localhost,IP:127.0.0.1,IP:10.0.2.2\\n' > ext && \
            openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out chain.pem";
        succeed(
            Command::new("sh").args(["-c", script]).current_dir(&folder),
            Duration::from_secs(20),
        )?;
        Ok((
            Self {
                chain: folder.join("chain.pem"),
                key: folder.join("key.pem"),
            },
            folder.join("ca.pem"),
        ))
    }

    /// One of the broker's own authority that was good until an hour ago, as if it had leaked since.
    pub(crate) fn expired(stack: &Stack) -> Result<Self> {
        let folder = stack.path(&stack.fresh("revived"));
        fs::create_dir(&folder)?;
        let broker = Path::new(stack.var("STATE")).join("kbs");
        let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\nserial=serial\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n\
            [p]\ncommonName=supplied\n[e]\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1,IP:10.0.2.2\n";
        fs::write(folder.join("config"), config)?;
        let script = format!(
            ": > index; echo 01 > serial; \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=broker -keyout key.pem -out csr && \
             openssl ca -batch -config config -cert {ca}/ca.pem -keyfile {ca}/ca.key -in csr -out chain.pem -notext \
             -startdate $(date -u -d '20 hours ago' +%Y%m%d%H%M%SZ) -enddate $(date -u -d '1 hour ago' +%Y%m%d%H%M%SZ)",
            ca = broker.display()
        );
        succeed(
            Command::new("sh").args(["-c", &script]).current_dir(&folder),
            Duration::from_secs(20),
        )?;
        Ok(Self {
            chain: folder.join("chain.pem"),
            key: folder.join("key.pem"),
        })
    }

    /// The certificate's file.
    pub(crate) fn chain(&self) -> &Path {
        &self.chain
    }
}

/// What a verifier says of a certificate that goes by the clock of this time, in seconds since the Unix epoch.
pub(crate) fn judged_at(authority: &Path, certificate: &Path, time: u64) -> Result<String> {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["verify", "-attime", &time.to_string(), "-CAfile"])
        .arg(authority)
        .arg(certificate);
    let out = cella_tests::process::run(&mut openssl, Duration::from_secs(10))?;
    Ok(String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

impl Relay {
    /// Listens with `identity` and passes on to the stack's broker what `change` leaves.
    pub(crate) fn start(stack: &Stack, identity: &Identity, change: Box<Change>) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = CertificateDer::pem_file_iter(&identity.chain)?.collect::<Result<Vec<_>, _>>()?;
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&identity.key)?)?;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(stack.var("KBS_CA"))? {
            roots.add(authority?)?;
        }
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let broker = stack
            .var("KBS")
            .strip_prefix("https://")
            .context("the broker's address")?
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let relay = Self {
            port: listener.local_addr()?.port(),
            heard: Arc::default(),
            stop: Arc::default(),
        };
        let (heard, stop) = (Arc::clone(&relay.heard), Arc::clone(&relay.stop));
        let middle = Arc::new(Middle {
            server: Arc::new(server),
            client: Arc::new(client),
            broker,
            change,
            heard,
        });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let middle = Arc::clone(&middle);
                thread::spawn(move || middle.pass(stream).ok());
            }
        });
        Ok(relay)
    }

    /// Where the guest finds it.
    pub(crate) fn guest_url(&self) -> String {
        format!("https://10.0.2.2:{}", self.port)
    }

    /// What was heard so far.
    pub(crate) fn heard(&self) -> Vec<u8> {
        self.heard.lock().map(|heard| heard.clone()).unwrap_or_default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

struct Middle {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    broker: String,
    change: Box<Change>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Middle {
    fn pass(&self, guest: TcpStream) -> Result<()> {
        guest.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut guest = StreamOwned::new(ServerConnection::new(Arc::clone(&self.server))?, guest);
        let mut first = message(&mut guest)?; // a guest that refuses the certificate ends here
        let name = ServerName::try_from("127.0.0.1")?;
        let mut broker = StreamOwned::new(
            ClientConnection::new(Arc::clone(&self.client), name)?,
            TcpStream::connect(&self.broker)?,
        );
        while !first.is_empty() {
            self.hear(&first);
            (self.change)(&mut first);
            broker.write_all(&first)?;
            broker.flush()?;
            let answer = message(&mut broker)?;
            self.hear(&answer);
            guest.write_all(&answer)?;
            guest.flush()?;
            first = message(&mut guest)?;
        }
        Ok(())
    }

    fn hear(&self, bytes: &[u8]) {
        if let Ok(mut heard) = self.heard.lock() {
            heard.extend_from_slice(bytes);
        }
    }
}

/// One request or answer of HTTP/1.1 with a length; empty at the end of the stream.
fn message(stream: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut wanted = usize::MAX;
    while bytes.len() < wanted {
        let mut chunk = [0; 16384];
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) if bytes.is_empty() => return Ok(bytes),
            Ok(0) => anyhow::bail!("cut short"),
            Ok(n) => bytes.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(error) => return Err(error.into()),
        }
        if wanted == usize::MAX
            && let Some(head) = memchr::memmem::find(&bytes, b"\r\n\r\n")
        {
            let text = String::from_utf8_lossy(bytes.get(..head).unwrap_or_default()).to_ascii_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            wanted = head + 4 + length.unwrap_or_default();
        }
    }
    Ok(bytes)
}
