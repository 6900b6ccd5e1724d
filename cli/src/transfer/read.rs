//! Reading one blob of a registry from front to back.

use cella_oci::{Descriptor, Registry};

use super::Tries;
use crate::store::StoreError;

/// Hands on the blob's bytes from `at` to its end; goes on by range where a connection broke. `at` says how far it came.
/// Whether they are the blob is the caller's to check.
pub(crate) async fn read_blob<E: From<StoreError>>(
    registry: &Registry,
    repository: &str,
    descriptor: &Descriptor,
    at: &mut u64,
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut tries = Tries::default();
    while *at < descriptor.size {
        let range = Some(*at..descriptor.size);
        let error = match registry.blob_stream(repository, &descriptor.digest, range).await {
            Err(error) => error,
            Ok(mut stream) => loop {
                match stream.chunk().await {
                    Ok(Some(bytes)) => {
                        sink(&bytes)?;
                        *at += bytes.len() as u64;
                        tries.went_on();
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => break error,
                }
            },
        };
        if !tries.again(&error, |text| eprintln!("{text}")).await {
            return Err(StoreError::Registry(error).into());
        }
    }
    Ok(())
}
