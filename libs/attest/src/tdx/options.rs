//! What a verifier tolerates of an authentic quote.

use std::time::Duration;

use super::{
    error::TdxError,
    report::{ATTRIBUTE_DEBUG, ATTRIBUTE_PKS, ATTRIBUTE_SEPT_VE_DISABLE, TdReport},
    status::TcbStatus,
    verify::VerifiedTd,
};
use crate::hex_bytes::Hex;

/// Bits 7 to 0 of a TD's attributes: with any of them the host may look into the guest.
const UNDER_DEBUG: u64 = 0xff;

/// A status other than up to date that is accepted for a while, because of what is known of its advisories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcbException {
    /// The status.
    pub status: TcbStatus,
    /// The advisories that are known: a platform that is subject to any other is refused.
    pub advisories: Vec<String>,
    /// Until when, since the Unix epoch.
    pub until: Duration,
}

/// What a verifier tolerates. The default takes platforms that Intel calls up to date, whose guest cannot be debugged or migrated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TdxOptions {
    /// Statuses that are accepted beside up to date.
    pub exceptions: Vec<TcbException>,
    /// Accept every status but revoked, whatever the exceptions are: for whoever judges [`VerifiedTd::status`] later.
    pub any_status: bool,
    /// How old Intel's documents may be, whatever they say of themselves; `None`: as old as they say.
    pub max_collateral_age: Option<Duration>,
    /// Lowest number of Intel's evaluation that the collateral may be of.
    pub minimum_evaluation: u32,
    /// Lowest security versions of the TDX module, component by component, at launch and now.
    pub minimum_tee_tcb_svn: [u8; 16],
    /// Attributes that the guest may have. Debugging is refused even if it is named.
    pub allowed_attributes: u64,
    /// Attributes that the guest must have.
    pub required_attributes: u64,
    /// Accept platforms to which packages can be added. Clouds' platforms are such.
    pub allow_dynamic: bool,
    /// Accept platforms whose root keys Intel's registration service keeps. Clouds' platforms are such.
    pub allow_cached_keys: bool,
    /// Accept platforms with simultaneous multithreading.
    pub allow_smt: bool,
    /// Platforms that are accepted, by their instance id, or by their PPID where they have none; `None`: any.
    pub platforms: Option<Vec<[u8; 16]>>,
}

impl Default for TdxOptions {
    fn default() -> Self {
        Self {
            exceptions: Vec::new(),
            any_status: false,
            max_collateral_age: None,
            minimum_evaluation: 0,
            minimum_tee_tcb_svn: [0; 16],
            allowed_attributes: ATTRIBUTE_SEPT_VE_DISABLE | ATTRIBUTE_PKS,
            required_attributes: ATTRIBUTE_SEPT_VE_DISABLE,
            allow_dynamic: true,
            allow_cached_keys: true,
            allow_smt: true,
            platforms: None,
        }
    }
}

impl TdxOptions {
    /// Accepts one more status.
    #[must_use]
    pub fn exception(mut self, exception: TcbException) -> Self {
        self.exceptions.push(exception);
        self
    }

    /// Accepts every status but revoked.
    #[must_use]
    pub fn any_status(mut self) -> Self {
        self.any_status = true;
        self
    }

    /// Sets how old Intel's documents may be.
    #[must_use]
    pub fn max_collateral_age(mut self, age: Duration) -> Self {
        self.max_collateral_age = Some(age);
        self
    }

    /// Sets the lowest number of Intel's evaluation.
    #[must_use]
    pub fn minimum_evaluation(mut self, number: u32) -> Self {
        self.minimum_evaluation = number;
        self
    }

    /// Sets the lowest security versions of the TDX module.
    #[must_use]
    pub fn minimum_tee_tcb_svn(mut self, svn: [u8; 16]) -> Self {
        self.minimum_tee_tcb_svn = svn;
        self
    }

    /// Sets the attributes that the guest may have and must have.
    #[must_use]
    pub fn attributes(mut self, allowed: u64, required: u64) -> Self {
        (self.allowed_attributes, self.required_attributes) = (allowed, required);
        self
    }

    /// Accepts platforms to which packages can be added, with keys kept by Intel, with multithreading, or does not.
    #[must_use]
    pub fn configuration(mut self, dynamic: bool, cached_keys: bool, smt: bool) -> Self {
        (self.allow_dynamic, self.allow_cached_keys, self.allow_smt) = (dynamic, cached_keys, smt);
        self
    }

    /// Accepts these platforms only.
    #[must_use]
    pub fn platforms(mut self, ids: Vec<[u8; 16]>) -> Self {
        self.platforms = Some(ids);
        self
    }

    /// Everything that is wanted of an authentic quote.
    pub(super) fn judge(&self, report: &TdReport, guest: &VerifiedTd, now: Duration) -> Result<(), TdxError> {
        self.judge_attributes(report.attributes)?;
        if report.mr_service_td != [0; 48] || report.current_service_td != [0; 48] {
            return Err(TdxError::ServiceTd);
        }
        self.judge_platform(guest, now)
    }

    /// What is wanted of the platform below a guest.
    pub(crate) fn judge_platform(&self, guest: &VerifiedTd, now: Duration) -> Result<(), TdxError> {
        let age = now.saturating_sub(guest.collateral_issued);
        if let Some(max) = self.max_collateral_age.filter(|max| age > *max) {
            return Err(TdxError::CollateralAge { age, max });
        }
        if guest.evaluation < self.minimum_evaluation {
            return Err(TdxError::EvaluationNumber {
                found: guest.evaluation,
                minimum: self.minimum_evaluation,
            });
        }
        for svn in [Some(guest.tee_tcb_svn), guest.tee_tcb_svn2].into_iter().flatten() {
            if svn
                .iter()
                .zip(self.minimum_tee_tcb_svn)
                .any(|(own, least)| *own < least)
            {
                return Err(TdxError::TcbTooOld {
                    found: Hex(svn),
                    minimum: Hex(self.minimum_tee_tcb_svn),
                });
            }
        }
        let id = guest.platform.instance_id.unwrap_or(guest.platform.ppid);
        if self.platforms.as_ref().is_some_and(|list| !list.contains(&id)) {
            return Err(TdxError::PlatformNotAllowed);
        }
        for (what, allowed, set) in [
            ("dynamic platform", self.allow_dynamic, guest.platform.dynamic),
            ("cached keys", self.allow_cached_keys, guest.platform.cached_keys),
            ("SMT", self.allow_smt, guest.platform.smt),
        ] {
            // A platform of one package does not say; only what it says can be refused.
            if !allowed && set == Some(true) {
                return Err(TdxError::Configuration { what });
            }
        }
        if self.accepts(guest.status, &guest.advisories, now) {
            return Ok(());
        }
        Err(TdxError::TcbStatus {
            status: guest.status,
            advisories: guest.advisories.clone(),
        })
    }

    fn judge_attributes(&self, attributes: u64) -> Result<(), TdxError> {
        if attributes & (UNDER_DEBUG | ATTRIBUTE_DEBUG) != 0 {
            return Err(TdxError::DebugAllowed { attributes });
        }
        let bits = attributes & !self.allowed_attributes;
        if bits != 0 {
            return Err(TdxError::AttributesForbidden { attributes, bits });
        }
        let bits = self.required_attributes & !attributes;
        if bits != 0 {
            return Err(TdxError::AttributesRequired { attributes, bits });
        }
        Ok(())
    }

    /// Up to date without advisories, or an exception that has not ended and knows every advisory. Never a revoked platform.
    fn accepts(&self, status: TcbStatus, advisories: &[String], now: Duration) -> bool {
        if status == TcbStatus::UpToDate && advisories.is_empty() {
            return true;
        }
        let excepted = |exception: &TcbException| {
            exception.status == status
                && now < exception.until
                && advisories
                    .iter()
                    .all(|advisory| exception.advisories.contains(advisory))
        };
        status != TcbStatus::Revoked && (self.any_status || self.exceptions.iter().any(excepted))
    }
}
