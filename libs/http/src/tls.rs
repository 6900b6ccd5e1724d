//! The certificate authorities a client trusts, and the TLS configuration made of them.
use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::dates::Judge;
use crate::time::TrustedTime;

/// The only certificate authorities that a client believes. The system's own are never consulted.
#[derive(Clone)]
pub struct TlsRoots(Arc<RootCertStore>);

impl TlsRoots {
    /// Reads one or more certificates in PEM form; other PEM objects and text between them are skipped.
    ///
    /// # Errors
    /// When there is no certificate, or one that cannot be an authority.
    pub fn from_pem(pem: &str) -> Result<Self, TlsRootsError> {
        let mut store = RootCertStore::empty();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
            let certificate = certificate.map_err(|source| TlsRootsError::Pem { index, source })?;
            store
                .add(certificate)
                .map_err(|source| TlsRootsError::Certificate { index, source })?;
        }
        if store.is_empty() {
            Err(TlsRootsError::Empty)
        } else {
            Ok(Self(Arc::new(store)))
        }
    }

    /// Who judges certificates by `time`.
    pub(crate) fn judge(&self, time: TrustedTime) -> Result<Judge, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.0), provider).build();
        inner
            .map(|inner| Judge::new(inner, time))
            .map_err(|error| rustls::Error::General(error.to_string()))
    }

    /// A configuration for TLS 1.2 and 1.3 that offers HTTP/1.1 only, over ring, without touching the process default.
    /// With a judge, certificates are its business.
    pub(crate) fn client_config(&self, judge: Option<Arc<Judge>>) -> Result<Arc<ClientConfig>, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        let mut config = match judge {
            Some(judge) => builder.dangerous().with_custom_certificate_verifier(judge),
            None => builder.with_root_certificates(Arc::clone(&self.0)),
        }
        .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsRoots({} certificates)", self.0.len())
    }
}

/// Why a PEM text gives no authorities.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsRootsError {
    /// The PEM armour or its base64 is broken.
    #[error("certificate {index} is not valid PEM")]
    Pem {
        /// Which one, counted from 0.
        index: usize,
        /// What the reader says.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate cannot be used as an authority.
    #[error("certificate {index} cannot be used as a certificate authority")]
    Certificate {
        /// Which one, counted from 0.
        index: usize,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// Nothing between `BEGIN CERTIFICATE` and `END CERTIFICATE`.
    #[error("the text holds no certificate in PEM form")]
    Empty,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_certificate() {
        assert!(matches!(TlsRoots::from_pem(""), Err(TlsRootsError::Empty)));
        assert!(matches!(TlsRoots::from_pem("hello"), Err(TlsRootsError::Empty)));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(TlsRoots::from_pem(key), Err(TlsRootsError::Empty)));
        let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            TlsRoots::from_pem(not_der),
            Err(TlsRootsError::Certificate { index: 0, .. })
        ));
        let not_base64 = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            TlsRoots::from_pem(not_base64),
            Err(TlsRootsError::Pem { index: 0, .. })
        ));
    }

    #[test]
    fn reads_several() {
        let one = rcgen::generate_simple_self_signed(vec!["a".to_owned()])
            .unwrap()
            .cert
            .pem();
        let two = rcgen::generate_simple_self_signed(vec!["b".to_owned()])
            .unwrap()
            .cert
            .pem();
        let roots = TlsRoots::from_pem(&format!("# first\n{one}\n{two}")).unwrap();
        assert_eq!(format!("{roots:?}"), "TlsRoots(2 certificates)");
    }
}
