//! Attestation results: what a guest gets for good evidence, in the shape of an EAR (EAT Attestation Result) as
//! Trustee writes it.
//!
//! A JWT signed with ES256 by a key that is in the database ([`TokenKeys`]), so tokens outlive a restart of the broker. The
//! header shows the public key as `jwk`, with `kid`, its thumbprint; the broker itself verifies with its own keys and never
//! looks at those members. A token is as good as the session it came from and ends with it.
//!
//! `hardware` is 2 (affirming) for AMD's roots, and for Intel's where the platform is up to date; 32 (warning) where Intel asks for
//! another configuration, hardening or a relaunch, 96 (contraindicated) where it is out of date: rules may accept such platforms for a while. Under a
//! development root it is 97 (contraindicated) and `simulated` is true, at the top and among the platform's claims: whoever reads
//! EARs by their status refuses it. No reference values are consulted here, so nothing is claimed about executables and configuration: that is each resource's rule.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cella_attest::tdx::TcbStatus;
use cella_kbs_client::wire::TeePubKey;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::facts::{Facts, Guest};
use crate::jws::{self, JwsError, Unverified};
use crate::workload::Workload;

mod keys;
mod snp;
mod tdx;

pub use keys::{TokenKeys, TokenKeysError};

use snp::SnpClaims;
use tdx::TdxClaims;

const ISSUER: &str = "cella-kbs";
const PROFILE: &str = "tag:github.com,2024:confidential-containers/Trustee";

/// Signs tokens, and verifies those it signed.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    rng: SystemRandom,
}

impl TokenKey {
    /// A new key, as PKCS#8 DER.
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, TokenKeyError> {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        // ring's document is not zeroed on drop; a copy of a key that only this broker believes stays on the heap.
        der.map(|der| Zeroizing::new(der.as_ref().to_vec()))
            .map_err(|_| TokenKeyError)
    }

    /// Takes a key that [`generate`](Self::generate) made.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, TokenKeyError> {
        let rng = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &rng).map_err(|_| TokenKeyError)?;
        Ok(Self { pair, rng })
    }

    /// Makes a token, valid for `lifetime` seconds from `now`. `session` is the session's tag.
    pub fn issue(
        &self,
        facts: &Facts,
        nonce: &str,
        session: &str,
        now: u64,
        lifetime: u64,
    ) -> Result<String, TokenError> {
        let claims = Claims {
            eat_profile: PROFILE.to_owned(),
            iss: ISSUER.to_owned(),
            iat: now,
            exp: now.saturating_add(lifetime),
            jti: session.to_owned(),
            simulated: facts.simulated(),
            verifier: Verifier::this(),
            submods: Submods {
                cpu0: Appraisal::new(facts, nonce),
            },
        };
        let input = jws::signing_input(&self.header(), &claims).map_err(|_| TokenError::Make)?;
        let signature = self
            .pair
            .sign(&self.rng, input.as_bytes())
            .map_err(|_| TokenError::Make)?;
        Ok(jws::join(&input, signature.as_ref()))
    }

    /// Checks a token at `now`, in Unix seconds, and gives back what it was issued for.
    pub fn verify(&self, token: &str, now: u64) -> Result<Proven, TokenError> {
        let jws = Unverified::parse(token, "ES256")?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(jws.signed, &jws.signature)
            .map_err(|_| TokenError::Signature)?;
        let claims: Claims = jws.claims()?;
        if claims.iss != ISSUER {
            return Err(TokenError::Issuer);
        }
        if now >= claims.exp {
            return Err(TokenError::Expired);
        }
        let facts = claims.submods.cpu0.facts(claims.simulated)?;
        Ok(Proven {
            facts,
            session: claims.jti,
        })
    }

    /// The key's thumbprint (RFC 7638, SHA-256), base64url.
    pub fn id(&self) -> String {
        let (x, y) = self.coordinates();
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))
    }

    /// The public key as JWK.
    pub fn jwk(&self) -> serde_json::Value {
        let (x, y) = self.coordinates();
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id(), "x": x, "y": y})
    }

    fn coordinates(&self) -> (String, String) {
        let point = self.pair.public_key().as_ref();
        let coordinate = |range| URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default());
        (coordinate(1..33), coordinate(33..65))
    }

    fn header(&self) -> serde_json::Value {
        json!({"alg": "ES256", "typ": "JWT", "kid": self.id(), "jwk": self.jwk()})
    }
}

/// What a token proves.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Proven {
    /// About the guest.
    pub facts: Facts,
    /// Tag of the session in which it was issued.
    pub session: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    eat_profile: String,
    iss: String,
    iat: u64,
    exp: u64,
    jti: String,
    simulated: bool,
    #[serde(rename = "ear.verifier-id")]
    verifier: Verifier,
    submods: Submods,
}

#[derive(Serialize, Deserialize)]
struct Verifier {
    developer: String,
    build: String,
}

impl Verifier {
    fn this() -> Self {
        Self {
            developer: "cella".to_owned(),
            build: concat!("cella-kbs ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Submods {
    cpu0: Appraisal,
}

#[derive(Serialize, Deserialize)]
struct Appraisal {
    #[serde(rename = "ear.status")]
    status: String,
    #[serde(rename = "ear.appraisal-policy-id")]
    policy: String,
    #[serde(rename = "ear.trustworthiness-vector")]
    vector: Vector,
    #[serde(rename = "ear.veraison.annotated-evidence")]
    evidence: Annotated,
}

#[derive(Serialize, Deserialize)]
struct Vector {
    hardware: i8,
}

#[derive(Serialize, Deserialize)]
struct Annotated {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snp: Option<SnpClaims>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tdx: Option<TdxClaims>,
    /// HOST_DATA or MRCONFIGID, hex.
    init_data: String,
    /// SHA-256 of the document, hex.
    init_data_sha256: String,
    #[serde(default)]
    init_data_claims: InitdataClaims,
    runtime_data_claims: RuntimeData,
}

/// What the document says, as far as floors are concerned.
#[derive(Default, Serialize, Deserialize)]
struct InitdataClaims {
    #[serde(rename = "cella.toml")]
    cella: Workload,
}

#[derive(Serialize, Deserialize)]
struct RuntimeData {
    nonce: String,
    #[serde(rename = "tee-pubkey")]
    tee_key: TeePubKey,
}

impl Appraisal {
    fn new(facts: &Facts, nonce: &str) -> Self {
        let (status, hardware) = judgement(facts);
        let (snp, tdx) = match &facts.guest {
            Guest::Snp(snp) => (Some(SnpClaims::new(snp)), None),
            Guest::Tdx(td) => (None, Some(TdxClaims::new(td))),
        };
        Self {
            status: status.to_owned(),
            policy: "cella".to_owned(),
            vector: Vector { hardware },
            evidence: Annotated {
                snp,
                tdx,
                init_data: hex::encode(facts.bound()),
                init_data_sha256: hex::encode(facts.initdata),
                init_data_claims: InitdataClaims {
                    cella: facts.workload.clone(),
                },
                runtime_data_claims: RuntimeData {
                    nonce: nonce.to_owned(),
                    tee_key: facts.tee_key.clone(),
                },
            },
        }
    }

    fn facts(self, simulated: bool) -> Result<Facts, TokenError> {
        let Annotated {
            snp,
            tdx,
            init_data,
            init_data_sha256,
            init_data_claims,
            runtime_data_claims,
        } = self.evidence;
        let guest = match (snp, tdx) {
            (Some(snp), None) => Guest::Snp(snp.verified(simulated, bytes(&init_data)?)?),
            (None, Some(tdx)) => Guest::Tdx(tdx.verified(simulated, bytes(&init_data)?)?),
            _ => return Err(TokenError::Token(JwsError::Malformed)),
        };
        Ok(Facts {
            guest,
            initdata: bytes(&init_data_sha256)?,
            workload: init_data_claims.cella,
            tee_key: runtime_data_claims.tee_key,
        })
    }
}

/// Status and hardware claim, in the tiers of AR4SI: 2 affirms, 32 warns, 96 and 97 contraindicate.
fn judgement(facts: &Facts) -> (&'static str, i8) {
    use TcbStatus::{OutOfDate, OutOfDateConfigurationNeeded, Revoked, UpToDate};
    match &facts.guest {
        _ if facts.simulated() => ("contraindicated", 97),
        Guest::Snp(_) => ("affirming", 2),
        Guest::Tdx(td) => match td.status {
            UpToDate if td.advisories.is_empty() => ("affirming", 2),
            OutOfDate | OutOfDateConfigurationNeeded | Revoked => ("contraindicated", 96),
            _ => ("warning", 32),
        },
    }
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| TokenError::Token(JwsError::Malformed))?;
    Ok(bytes)
}

/// A token is not accepted, or cannot be made. The texts go to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a token that is looked at.
    #[error("token: {0}")]
    Token(#[from] JwsError),
    /// Another broker's, or forged.
    #[error("token: not signed by this broker")]
    Signature,
    /// Signed with this key by something else.
    #[error("token: not issued by cella-kbs")]
    Issuer,
    /// Too old.
    #[error("token: expired")]
    Expired,
    /// Signing or encoding failed.
    #[error("token: cannot be made")]
    Make,
}

/// The bytes are not a PKCS#8 key on P-256, or the system gives no randomness for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a PKCS#8 key on P-256")]
pub struct TokenKeyError;

#[cfg(test)]
mod tests;
