//! Attestation results: what a guest gets for good evidence, in the shape of an EAR (EAT Attestation Result) as
//! Trustee writes it.
//!
//! A JWT signed with ES256 by a key that is in the database ([`TokenKeys`]), so tokens outlive a restart of the broker. The
//! header shows the public key as `jwk`, with `kid`, its thumbprint; the broker itself verifies with its own keys and never
//! looks at those members. A token is as good as the session it came from and ends with it.
//!
//! `hardware` is 2 (affirming) for AMD's roots. Under a development root it is 97 (contraindicated) and `simulated` is
//! true, at the top and among the SNP claims: whoever reads EARs by their status refuses it. No reference values are
//! consulted here, so nothing is claimed about executables and configuration: that is each resource's rule.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cella_attest::snp::{Mitigations, POLICY_DEBUG, Product, SigningKey, TcbVersion};
use cella_kbs_client::wire::TeePubKey;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::facts::Facts;
use crate::jws::{self, JwsError, Unverified};
use crate::workload::Workload;

mod keys;

pub use keys::{TokenKeys, TokenKeysError};

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
            simulated: facts.simulated,
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
    snp: Snp,
    /// HOST_DATA, hex.
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

#[derive(Serialize, Deserialize)]
struct Snp {
    measurement: String,
    product: String,
    chip_id: String,
    policy: u64,
    policy_debug_allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reported_tcb_fmc: Option<u8>,
    reported_tcb_bootloader: u8,
    reported_tcb_tee: u8,
    reported_tcb_snp: u8,
    reported_tcb_microcode: u8,
    launch_tcb: TcbVersion,
    report_version: u32,
    signing_key: String,
    platform_info: u64,
    /// At launch, and now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mitigations: Option<(u64, u64)>,
    simulated: bool,
}

impl Appraisal {
    fn new(facts: &Facts, nonce: &str) -> Self {
        let (status, hardware) = if facts.simulated {
            ("contraindicated", 97)
        } else {
            ("affirming", 2)
        };
        let snp = Snp {
            measurement: hex::encode(facts.measurement),
            product: facts.product.to_string(),
            chip_id: hex::encode(facts.chip_id),
            policy: facts.guest_policy,
            policy_debug_allowed: facts.guest_policy & POLICY_DEBUG != 0,
            reported_tcb_fmc: facts.tcb.fmc,
            reported_tcb_bootloader: facts.tcb.bootloader,
            reported_tcb_tee: facts.tcb.tee,
            reported_tcb_snp: facts.tcb.snp,
            reported_tcb_microcode: facts.tcb.microcode,
            launch_tcb: facts.launch_tcb,
            report_version: facts.report_version,
            signing_key: key_name(facts.signing_key).to_owned(),
            platform_info: facts.platform_info,
            mitigations: facts.mitigations.map(|vectors| (vectors.launch, vectors.current)),
            simulated: facts.simulated,
        };
        Self {
            status: status.to_owned(),
            policy: "cella".to_owned(),
            vector: Vector { hardware },
            evidence: Annotated {
                snp,
                init_data: hex::encode(facts.host_data),
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
            init_data,
            init_data_sha256,
            init_data_claims,
            runtime_data_claims,
        } = self.evidence;
        Ok(Facts {
            simulated,
            product: product(&snp.product)?,
            measurement: bytes(&snp.measurement)?,
            host_data: bytes(&init_data)?,
            initdata: bytes(&init_data_sha256)?,
            tcb: TcbVersion {
                fmc: snp.reported_tcb_fmc,
                bootloader: snp.reported_tcb_bootloader,
                tee: snp.reported_tcb_tee,
                snp: snp.reported_tcb_snp,
                microcode: snp.reported_tcb_microcode,
            },
            chip_id: bytes(&snp.chip_id)?,
            guest_policy: snp.policy,
            report_version: snp.report_version,
            signing_key: signing_key(&snp.signing_key)?,
            launch_tcb: snp.launch_tcb,
            platform_info: snp.platform_info,
            mitigations: snp.mitigations.map(|(launch, current)| Mitigations { launch, current }),
            workload: init_data_claims.cella,
            tee_key: runtime_data_claims.tee_key,
        })
    }
}

fn product(text: &str) -> Result<Product, TokenError> {
    [Product::Milan, Product::Genoa, Product::Turin]
        .into_iter()
        .find(|product| product.to_string() == text)
        .ok_or(TokenError::Token(JwsError::Malformed))
}

fn key_name(key: SigningKey) -> &'static str {
    match key {
        SigningKey::Vcek => "VCEK",
        SigningKey::Vlek => "VLEK",
    }
}

fn signing_key(text: &str) -> Result<SigningKey, TokenError> {
    [SigningKey::Vcek, SigningKey::Vlek]
        .into_iter()
        .find(|key| key_name(*key) == text)
        .ok_or(TokenError::Token(JwsError::Malformed))
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
