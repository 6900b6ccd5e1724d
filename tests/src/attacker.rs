//! What a hostile host or network puts in the way: proxies that die, brokers that hang or talk nonsense, a QEMU that is
//! started with other bytes than the shim asked for.
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::Stack;

/// A listener on loopback that serves each connection with `serve`, until dropped.
pub struct Peer {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Peer {
    fn listen(serve: impl Fn(TcpStream, &Arc<AtomicBool>) + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, serve) = (Arc::clone(&stop), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if flag.load(Ordering::SeqCst) {
                    return; // the listener closes: later connections are refused
                }
                let (flag, serve) = (Arc::clone(&flag), Arc::clone(&serve));
                thread::spawn(move || serve(stream, &flag));
            }
        });
        Ok(Self { port, stop })
    }

    /// Passes bytes to and from `to`; dies for good after `limit` bytes have come back from it.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn dies_after(to: &str, limit: u64) -> Result<Self> {
        let (to, passed) = (to.to_owned(), Arc::new(AtomicU64::new(0)));
        Self::listen(move |client, stop| {
            let Ok(server) = TcpStream::connect(&to) else { return };
            let (Ok(mut up_in), Ok(mut up_out)) = (client.try_clone(), server.try_clone()) else {
                return;
            };
            thread::spawn(move || std::io::copy(&mut up_in, &mut up_out));
            let (mut from, mut into, mut buffer) = (&server, &client, [0_u8; 4096]);
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                if passed.fetch_add(n as u64, Ordering::SeqCst) > limit || stop.load(Ordering::SeqCst) {
                    stop.store(true, Ordering::SeqCst);
                    break;
                }
                if buffer.get(..n).is_none_or(|bytes| into.write_all(bytes).is_err()) {
                    break;
                }
            }
            client.shutdown(Shutdown::Both).ok();
            server.shutdown(Shutdown::Both).ok();
        })
    }

    /// Takes connections and never says a word.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn silent() -> Result<Self> {
        Self::listen(|mut stream, _| {
            let mut sink = [0_u8; 1024];
            while matches!(stream.read(&mut sink), Ok(1..)) {}
        })
    }

    /// Speaks TLS with the broker's own certificate (it has stolen it) and answers every request with `body`.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn garbage_broker(stack: &Stack, body: &'static [u8]) -> Result<Self> {
        let dir = Path::new(stack.var("STATE")).join("kbs");
        let chain = CertificateDer::pem_file_iter(dir.join("server.pem"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(dir.join("server.key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let config = Arc::new(config);
        Self::listen(move |stream, _| {
            let Ok(session) = rustls::ServerConnection::new(Arc::clone(&config)) else {
                return;
            };
            let mut tls = rustls::StreamOwned::new(session, stream);
            let mut request = [0_u8; 4096];
            if matches!(tls.read(&mut request), Ok(1..)) {
                write!(tls, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).ok();
                tls.write_all(body).ok();
                tls.conn.send_close_notify();
                tls.flush().ok();
            }
        })
    }

    /// Where the guest finds it.
    #[must_use]
    pub fn guest_url(&self) -> String {
        format!("https://10.0.2.2:{}", self.port)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(("127.0.0.1", self.port)).ok();
    }
}

/// A QEMU that runs `script` first; `"$@"` are the shim's arguments, `$QEMU` the real program, which must be exec'ed.
///
/// # Errors
/// When the script cannot be written.
pub fn qemu_wrapper(stack: &Stack, script: &str) -> Result<PathBuf> {
    let path = stack.path(&stack.fresh("qemu"));
    fs::write(&path, format!("#!/bin/bash\nQEMU={}\n{script}\n", stack.var("QEMU")))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// A copy of the guest image with one file changed by `change`.
///
/// # Errors
/// When files cannot be copied.
pub fn guest_image_with(stack: &Stack, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<PathBuf> {
    let copy = stack.path(&stack.fresh("image"));
    fs::create_dir(&copy)?;
    for name in ["vmlinuz", "initrd", "cmdline"] {
        fs::copy(Path::new(stack.var("GUEST_IMAGE")).join(name), copy.join(name)).with_context(|| name.to_owned())?;
    }
    let mut bytes = fs::read(copy.join(file))?;
    change(&mut bytes);
    fs::write(copy.join(file), bytes)?;
    Ok(copy)
}

/// A QEMU whose initdata disk carries these bytes instead of those that the shim wrote.
///
/// # Errors
/// When a file cannot be written.
pub fn qemu_with_initdata(stack: &Stack, bytes: &[u8]) -> Result<PathBuf> {
    let image = stack.path(&stack.fresh("initdata"));
    fs::write(&image, bytes)?;
    qemu_wrapper(
        stack,
        &format!(
            "for a in \"$@\"; do case $a in *initdata*filename=*|*filename=*initdata*) f=${{a##*filename=}}; f=${{f%%,*}}; cp {} \"$f\";; esac; done\nexec \"$QEMU\" \"$@\"",
            image.display()
        ),
    )
}
