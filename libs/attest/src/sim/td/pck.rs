//! The extension of a platform's certificate.

use x509_cert::{
    der::{
        self, Any, Encode, Tag,
        asn1::{ObjectIdentifier, OctetString},
    },
    ext::Extension,
};

use super::SimError;

const SGX: &str = "1.2.840.113741.1.13.1";

/// What Intel would write about the simulated platform.
pub(super) fn extensions(cpu_svn: u8, pce_svn: u16, fmspc: [u8; 6]) -> Result<Vec<Extension>, SimError> {
    let what = "SGX extension";
    encode(cpu_svn, pce_svn, fmspc).map_err(|source| SimError::Encode { what, source })
}

fn encode(cpu_svn: u8, pce_svn: u16, fmspc: [u8; 6]) -> Result<Vec<Extension>, der::Error> {
    let mut tcb = Vec::new();
    for component in 1..=16 {
        tcb.extend(member(&format!("2.{component}"), &cpu_svn)?);
    }
    tcb.extend(member("2.17", &pce_svn)?);
    tcb.extend(member("2.18", &OctetString::new([cpu_svn; 16])?)?);
    let configuration = [member("7.1", &true)?, member("7.2", &true)?, member("7.3", &true)?].concat();
    let all = [
        member("1", &OctetString::new(*b"simulated PPID..")?)?,
        member("2", &Any::new(Tag::Sequence, tcb)?)?,
        member("3", &OctetString::new([0; 2])?)?,
        member("4", &OctetString::new(fmspc)?)?,
        member("5", &Any::new(Tag::Enumerated, [1])?)?,
        member("6", &OctetString::new(*b"simulated PIID..")?)?,
        member("7", &Any::new(Tag::Sequence, configuration)?)?,
    ];
    Ok(vec![Extension {
        extn_id: ObjectIdentifier::new(SGX)?,
        critical: false,
        extn_value: OctetString::new(Any::new(Tag::Sequence, all.concat())?.to_der()?)?,
    }])
}

/// A SEQUENCE of identifier and value.
fn member(arcs: &str, value: &impl Encode) -> Result<Vec<u8>, der::Error> {
    let oid = ObjectIdentifier::new(&format!("{SGX}.{arcs}"))?;
    Any::new(Tag::Sequence, [oid.to_der()?, value.to_der()?].concat())?.to_der()
}
