//! By which clock a server's certificates are judged.
//!
//! ```text
//!  handshake, time unknown ─▶ chain, name, usage at a moment that the certificates themselves allow ─▶ on probation
//!  handshake, time known ───▶ all of it at that time
//!  time becomes known ──────▶ whatever is on probation, all of it at that time: released, or every request fails from now on
//! ```
//! A session that is resumed was verified when it was made, by the same client.
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::time::TrustedTime;

/// Whose time decides whether a certificate is valid yet, or still.
#[derive(Debug, Clone, Default)]
pub enum Dates {
    /// The system's clock.
    #[default]
    System,
    /// This one, and never the system's. Before it is known, connections are made all the same, to servers whose
    /// certificates are right but for their dates; the dates are judged as soon as the time is known, at the next request
    /// or [`crate::Client::check_dates`].
    Trusted(TrustedTime),
}

/// Verifies certificates by a [`TrustedTime`].
pub(crate) struct Judge {
    inner: Arc<WebPkiServerVerifier>,
    time: TrustedTime,
    probation: Mutex<Vec<Chain>>,
}

/// What a server showed before the time was known.
#[derive(PartialEq)]
struct Chain {
    end_entity: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
}

impl Judge {
    pub(crate) fn new(inner: Arc<WebPkiServerVerifier>, time: TrustedTime) -> Self {
        Self {
            inner,
            time,
            probation: Mutex::default(),
        }
    }

    /// Judges what is on probation, if the time is known. A chain that fails stays, so that it fails again.
    pub(crate) fn judge(&self) -> Result<(), Error> {
        let Some(now) = self.time.now() else { return Ok(()) };
        let mut probation = self.probation.lock().unwrap_or_else(PoisonError::into_inner);
        for chain in &*probation {
            self.verify(&chain.end_entity, &chain.intermediates, &chain.name, now)?;
        }
        probation.clear();
        Ok(())
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        at: Duration,
    ) -> Result<(), Error> {
        let at = UnixTime::since_unix_epoch(at);
        self.inner
            .verify_server_cert(end_entity, intermediates, name, &[], at)
            .map(drop)
    }

    /// Everything but the dates: at the earliest moment at which none of the certificates is yet to become valid.
    fn verify_whenever(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> Result<(), Error> {
        let mut at = Duration::ZERO;
        for _ in 0..MAX_CHAIN {
            match self.verify(end_entity, intermediates, name, at) {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if not_before.as_secs() > at.as_secs() =>
                {
                    at = Duration::from_secs(not_before.as_secs());
                }
                done => return done,
            }
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet))
    }

    fn put_on_probation(&self, chain: Chain) -> Result<(), Error> {
        let mut probation = self.probation.lock().unwrap_or_else(PoisonError::into_inner);
        if probation.contains(&chain) {
            return Ok(());
        }
        if probation.len() >= MAX_PROBATION {
            return Err(Error::General(
                "too many different certificates before the time is known".to_owned(),
            ));
        }
        probation.push(chain);
        Ok(())
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        // The system's: not asked.
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.time.now() {
            Some(now) => self.verify(end_entity, intermediates, server_name, now)?,
            None => {
                self.verify_whenever(end_entity, intermediates, server_name)?;
                self.put_on_probation(Chain {
                    end_entity: end_entity.clone().into_owned(),
                    intermediates: intermediates.iter().map(|one| one.clone().into_owned()).collect(),
                    name: server_name.to_owned(),
                })?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Judge({:?})", self.time)
    }
}

/// Certificates of a path at most, as webpki has it.
const MAX_CHAIN: usize = 8;
/// Different chains of one server before the time is known.
const MAX_PROBATION: usize = 8;

#[cfg(test)]
mod tests;
