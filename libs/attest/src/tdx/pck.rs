//! What Intel wrote into the certificate of a platform's key (Intel SGX PCK certificate specification, section 1.3.5).

use x509_cert::{
    Certificate,
    der::{self, AnyRef, Decode, Reader, SliceReader, Tag, Tagged, asn1::ObjectIdentifier},
};

/// The extension that holds all the others. Below it only the last parts of the identifiers matter.
const SGX: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");
/// Security versions in a TCB: the CPU's components.
const COMPONENTS: usize = 16;

/// A platform at a TCB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Identity of the processor package.
    pub ppid: [u8; 16],
    /// Security versions of the CPU's components.
    pub cpu_svn: [u8; 16],
    /// Security version of the provisioning enclave.
    pub pce_svn: u16,
    /// Identity of the provisioning enclave.
    pub pce_id: [u8; 2],
    /// Family, model and configuration: which TCB info is this platform's.
    pub fmspc: [u8; 6],
    /// Identity of a platform of several packages.
    pub instance_id: Option<[u8; 16]>,
    /// Whether packages can be added to the platform.
    pub dynamic: Option<bool>,
    /// Whether Intel's registration service keeps the platform's root keys.
    pub cached_keys: Option<bool>,
    /// Whether simultaneous multithreading is on.
    pub smt: Option<bool>,
}

/// Why a certificate says nothing of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PckError {
    /// No extension, or more than one.
    #[error("the PCK certificate does not have its SGX extension once")]
    Extension,
    /// Not of the form that Intel specifies.
    #[error("the SGX extension of the PCK certificate is malformed")]
    Malformed,
    /// A member that must be there is not, stands twice, or has no valid value.
    #[error("the SGX extension of the PCK certificate has no valid {name}")]
    Member {
        /// Which.
        name: &'static str,
    },
}

impl Platform {
    pub(super) fn of(certificate: &Certificate) -> Result<Self, PckError> {
        let extensions = certificate.tbs_certificate.extensions.iter().flatten();
        let mut found = extensions.filter(|extension| extension.extn_id == SGX);
        let (Some(extension), None) = (found.next(), found.next()) else {
            return Err(PckError::Extension);
        };
        let outer = AnyRef::from_der(extension.extn_value.as_bytes()).map_err(|_| PckError::Malformed)?;
        let all = Members::of(outer, "1.2.840.113741.1.13.1")?;
        let tcb = Members::of(all.one("TCB", 2)?, "1.2.840.113741.1.13.1.2")?;
        let mut cpu_svn = [0; COMPONENTS];
        for (arc, svn) in (1..).zip(cpu_svn.iter_mut()) {
            *svn = tcb
                .one("TCB component", arc)?
                .decode_as()
                .map_err(|_| PckError::Member { name: "TCB component" })?;
        }
        let pce_svn = tcb
            .one("PCESVN", 17)?
            .decode_as()
            .map_err(|_| PckError::Member { name: "PCESVN" })?;
        let configuration = match all.at_most_one("configuration", 7)? {
            Some(value) => Members::of(value, "1.2.840.113741.1.13.1.7")?,
            None => Members(Vec::new()),
        };
        let instance_id = all.at_most_one("platform instance id", 6)?;
        Ok(Self {
            ppid: octets("PPID", all.one("PPID", 1)?)?,
            cpu_svn,
            pce_svn,
            pce_id: octets("PCEID", all.one("PCEID", 3)?)?,
            fmspc: octets("FMSPC", all.one("FMSPC", 4)?)?,
            instance_id: instance_id.map(|id| octets("platform instance id", id)).transpose()?,
            dynamic: configuration.flag("dynamic platform", 1)?,
            cached_keys: configuration.flag("cached keys", 2)?,
            smt: configuration.flag("SMT", 3)?,
        })
    }
}

fn octets<const N: usize>(name: &'static str, value: AnyRef<'_>) -> Result<[u8; N], PckError> {
    match value.value().try_into() {
        Ok(octets) if value.tag() == Tag::OctetString => Ok(octets),
        _ => Err(PckError::Member { name }),
    }
}

/// A SEQUENCE of (identifier, value), all directly below one arc: the last parts of the identifiers and the values.
struct Members<'a>(Vec<(u32, AnyRef<'a>)>);

impl<'a> Members<'a> {
    fn of(sequence: AnyRef<'a>, arc: &str) -> Result<Self, PckError> {
        Self::read(sequence, ObjectIdentifier::new_unwrap(arc)).map_err(|_| PckError::Malformed)
    }

    fn read(sequence: AnyRef<'a>, arc: ObjectIdentifier) -> Result<Self, der::Error> {
        sequence.tag().assert_eq(Tag::Sequence)?;
        let mut reader = SliceReader::new(sequence.value())?;
        let mut members = Vec::new();
        while !reader.is_finished() {
            let pair = AnyRef::decode(&mut reader)?;
            pair.tag().assert_eq(Tag::Sequence)?;
            let mut pair = SliceReader::new(pair.value())?;
            let oid = ObjectIdentifier::decode(&mut pair)?;
            let value = AnyRef::decode(&mut pair)?;
            pair.finish(())?;
            let last = oid.arcs().last().filter(|_| oid.parent() == Some(arc));
            members.push((last.ok_or(der::ErrorKind::Failed)?, value));
        }
        Ok(Self(members))
    }

    fn at_most_one(&self, name: &'static str, last: u32) -> Result<Option<AnyRef<'a>>, PckError> {
        let mut found = self.0.iter().filter(|(arc, _)| *arc == last).map(|(_, value)| *value);
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            _ => Err(PckError::Member { name }),
        }
    }

    fn one(&self, name: &'static str, last: u32) -> Result<AnyRef<'a>, PckError> {
        self.at_most_one(name, last)?.ok_or(PckError::Member { name })
    }

    fn flag(&self, name: &'static str, last: u32) -> Result<Option<bool>, PckError> {
        let value = self.at_most_one(name, last)?;
        value
            .map(|value| value.decode_as())
            .transpose()
            .map_err(|_| PckError::Member { name })
    }
}
