//! The server's TLS identity.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::version::TLS13;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;
use crate::files::{self, FileError};

/// Reads certificate chain and key. The cryptography is ring's, named here and not taken from the process.
pub(super) fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = files::read_text(&files.certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| TlsError::Certificate {
            path: files.certificate.clone(),
        })?;
    if chain.is_empty() {
        return Err(TlsError::Certificate {
            path: files.certificate.clone(),
        });
    }
    let key = PrivateKeyDer::from_pem_slice(&files::read_private(&files.key)?).map_err(|_| TlsError::Key {
        path: files.key.clone(),
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|source| TlsError::Identity { source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The TLS identity cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("a file of the TLS identity cannot be read")]
    File(#[from] FileError),
    /// No certificates.
    #[error("{} holds no PEM certificates", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
    },
    /// No key.
    #[error("{} holds no PEM private key", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
    },
    /// Certificate and key do not fit, or are of a kind that is not supported.
    #[error("certificate and key make no identity")]
    Identity {
        /// Why.
        #[source]
        source: rustls::Error,
    },
}
