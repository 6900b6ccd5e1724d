//! What a verifier tolerates of an authentic report.

use std::time::Duration;

use super::{POLICY_DEBUG, POLICY_MIGRATE_MA, POLICY_RESERVED_ONE, Product, SigningKey, TcbVersion};
use crate::{
    chain::ChainChecks,
    verify::{Verified, VerifyError},
};

/// What a verifier tolerates. The default refuses Milan, reports below version 3, debugging and migration; the rest is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Time since the Unix epoch at which certificates and revocation lists must be valid. `None`: their dates are not looked at, for
    /// whoever has no clock to trust.
    pub now: Option<Duration>,
    /// AMD's revocation lists, in DER, as the key distribution service gives them; of any products.
    pub crls: Vec<Vec<u8>>,
    /// Refuse evidence for whose root there is no revocation list.
    pub require_crl: bool,
    /// Accept Milan, whose VCEK secrets have been extracted by software (threat T20).
    pub allow_milan: bool,
    /// Accept reports that a cloud provider's key signed, which names no chip.
    pub allow_vlek: bool,
    /// Lowest report version. Version 2 names no processor.
    pub min_version: u32,
    /// Lowest TCB, component by component: of the platform now, and when the guest was launched.
    pub minimum_tcb: Option<TcbVersion>,
    /// Guest policy bits that must not be set; debugging and migration are refused without being named.
    pub forbidden_policy: u64,
    /// Guest policy bits that must be set, such as [`super::POLICY_SINGLE_SOCKET`].
    pub required_policy: u64,
    /// Lowest ABI, major and minor, that the guest policy may allow.
    pub minimum_abi: (u8, u8),
    /// Platform information bits that must be set, such as [`super::PLATFORM_ALIAS_CHECK`].
    pub required_platform: u64,
    /// Mitigations that must be in effect, now and at launch. Reports before version 5 have none.
    pub required_mitigations: u64,
    /// Chips that are accepted; `None`: any.
    pub chip_ids: Option<Vec<[u8; 64]>>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            now: None,
            crls: Vec::new(),
            require_crl: false,
            allow_milan: false,
            allow_vlek: true,
            min_version: 3,
            minimum_tcb: None,
            forbidden_policy: 0,
            required_policy: 0,
            minimum_abi: (0, 0),
            required_platform: 0,
            required_mitigations: 0,
            chip_ids: None,
        }
    }
}

impl VerifyOptions {
    /// Sets the time at which certificates and revocation lists must be valid.
    #[must_use]
    pub fn at(mut self, since_epoch: Duration) -> Self {
        self.now = Some(since_epoch);
        self
    }

    /// Sets AMD's revocation lists, and whether one by the chain's root must be among them.
    #[must_use]
    pub fn crls(mut self, crls: Vec<Vec<u8>>, required: bool) -> Self {
        (self.crls, self.require_crl) = (crls, required);
        self
    }

    /// Accepts Milan, or does not.
    #[must_use]
    pub fn allow_milan(mut self, allow: bool) -> Self {
        self.allow_milan = allow;
        self
    }

    /// Accepts a provider's key, or does not.
    #[must_use]
    pub fn allow_vlek(mut self, allow: bool) -> Self {
        self.allow_vlek = allow;
        self
    }

    /// Sets the lowest report version.
    #[must_use]
    pub fn min_version(mut self, version: u32) -> Self {
        self.min_version = version;
        self
    }

    /// Sets the lowest TCB.
    #[must_use]
    pub fn minimum_tcb(mut self, minimum: TcbVersion) -> Self {
        self.minimum_tcb = Some(minimum);
        self
    }

    /// Sets guest policy bits that must not and that must be set.
    #[must_use]
    pub fn policy(mut self, forbidden: u64, required: u64) -> Self {
        (self.forbidden_policy, self.required_policy) = (forbidden, required);
        self
    }

    /// Sets the lowest ABI.
    #[must_use]
    pub fn minimum_abi(mut self, major: u8, minor: u8) -> Self {
        self.minimum_abi = (major, minor);
        self
    }

    /// Sets platform information bits that must be set.
    #[must_use]
    pub fn required_platform(mut self, bits: u64) -> Self {
        self.required_platform = bits;
        self
    }

    /// Sets mitigations that must be in effect.
    #[must_use]
    pub fn required_mitigations(mut self, bits: u64) -> Self {
        self.required_mitigations = bits;
        self
    }

    /// Accepts these chips only.
    #[must_use]
    pub fn chip_ids(mut self, chip_ids: Vec<[u8; 64]>) -> Self {
        self.chip_ids = Some(chip_ids);
        self
    }

    pub(crate) fn chain_checks(&self) -> ChainChecks<'_> {
        ChainChecks {
            now: self.now,
            crls: &self.crls,
            require_crl: self.require_crl,
        }
    }

    /// Everything that is wanted of an authentic report.
    pub(crate) fn judge(&self, guest: &Verified) -> Result<(), VerifyError> {
        if guest.version < self.min_version {
            return Err(VerifyError::Version {
                found: guest.version,
                minimum: self.min_version,
            });
        }
        if guest.product == Product::Milan && !self.allow_milan {
            return Err(VerifyError::MilanRefused);
        }
        self.judge_policy(guest.policy)?;
        if guest.signing_key == SigningKey::Vlek && !self.allow_vlek {
            return Err(VerifyError::VlekRefused);
        }
        if self
            .chip_ids
            .as_ref()
            .is_some_and(|list| !list.contains(&guest.chip_id))
        {
            return Err(VerifyError::ChipNotAllowed);
        }
        let bits = self.required_platform & !guest.platform_info;
        if bits != 0 {
            return Err(VerifyError::Platform {
                platform_info: guest.platform_info,
                bits,
            });
        }
        let in_effect = guest.mitigations.map_or(0, |vectors| vectors.launch & vectors.current);
        let bits = self.required_mitigations & !in_effect;
        if bits != 0 {
            return Err(VerifyError::Mitigations { bits });
        }
        let Some(minimum) = self.minimum_tcb else { return Ok(()) };
        for (which, reported) in [("reported", guest.tcb), ("launch", guest.launch_tcb)] {
            if !reported.meets(&minimum) {
                return Err(VerifyError::TcbTooOld {
                    which,
                    reported,
                    minimum,
                });
            }
        }
        Ok(())
    }

    fn judge_policy(&self, policy: u64) -> Result<(), VerifyError> {
        if policy & POLICY_DEBUG != 0 {
            return Err(VerifyError::DebugAllowed { policy });
        }
        if policy & POLICY_MIGRATE_MA != 0 {
            return Err(VerifyError::MigrationAllowed { policy });
        }
        let bits = policy & self.forbidden_policy;
        if bits != 0 {
            return Err(VerifyError::PolicyForbidden { policy, bits });
        }
        let bits = (self.required_policy | POLICY_RESERVED_ONE) & !policy;
        if bits != 0 {
            return Err(VerifyError::PolicyRequired { policy, bits });
        }
        let [minor, major, ..] = policy.to_le_bytes();
        if (major, minor) < self.minimum_abi {
            return Err(VerifyError::PolicyAbi { major, minor });
        }
        Ok(())
    }
}
