//! What a token says of a TDX guest: the names of Trustee's claims, and some more.

use std::time::Duration;

use cella_attest::tdx::{
    ATTRIBUTE_DEBUG, ATTRIBUTE_PERFMON, ATTRIBUTE_PKS, ATTRIBUTE_SEPT_VE_DISABLE, Platform, TcbStatus, VerifiedTd,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{JwsError, TokenError, bytes};

/// TEE type and vendor in a quote's header: they are checked before anything else is.
const TEE_TYPE: &str = "81000000";
const VENDOR: &str = "939a7233f79c4ca9940a0db3957f0607";

#[derive(Serialize, Deserialize)]
pub(super) struct TdxClaims {
    quote: Quote,
    td_attributes: Attributes,
    tcb_status: TcbStatus,
    advisory_ids: Vec<String>,
    tcb_date: String,
    tcb_eval_num: u32,
    /// When the older document of the collateral was issued, in Unix seconds.
    collateral_issued: u64,
    /// The collateral was in force when the evidence was verified.
    collateral_expiration_status: String,
    /// PPID, hex.
    platform_provider_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform_instance_id: Option<String>,
    fmspc: String,
    cpu_svn: String,
    pce_svn: u16,
    pce_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_dynamic_platform: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_cached_keys: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_smt_enabled: Option<bool>,
    /// Whether an event log came and replayed to the registers.
    event_log_replayed: bool,
    /// MRTD, RTMR1, RTMR2 and RTMR3 in one value, hex.
    launch_digest: String,
    simulated: bool,
}

#[derive(Serialize, Deserialize)]
struct Quote {
    header: Header,
    body: Body,
}

/// Bytes in the order of the quote, hex.
#[derive(Serialize, Deserialize)]
struct Header {
    version: String,
    tee_type: String,
    vendor_id: String,
}

/// Bytes in the order of the quote, hex.
#[derive(Serialize, Deserialize)]
struct Body {
    mr_td: String,
    rtmr_0: String,
    rtmr_1: String,
    rtmr_2: String,
    rtmr_3: String,
    mr_config_id: String,
    mr_seam: String,
    tcb_svn: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tee_tcb_svn2: Option<String>,
    td_attributes: String,
    xfam: String,
}

/// Some bits of the attributes by name; for readers only.
#[derive(Serialize, Deserialize)]
struct Attributes {
    debug: bool,
    septve_disable: bool,
    protection_keys: bool,
    perfmon: bool,
}

impl TdxClaims {
    pub(super) fn new(td: &VerifiedTd) -> Self {
        let [rtmr_0, rtmr_1, rtmr_2, rtmr_3] = td.rtmr.map(hex::encode);
        let is = |bit| td.attributes & bit != 0;
        Self {
            quote: Quote {
                header: Header {
                    version: hex::encode(td.version.to_le_bytes()),
                    tee_type: TEE_TYPE.to_owned(),
                    vendor_id: VENDOR.to_owned(),
                },
                body: Body {
                    mr_td: hex::encode(td.mrtd),
                    rtmr_0,
                    rtmr_1,
                    rtmr_2,
                    rtmr_3,
                    mr_config_id: hex::encode(td.mr_config_id),
                    mr_seam: hex::encode(td.mr_seam),
                    tcb_svn: hex::encode(td.tee_tcb_svn),
                    tee_tcb_svn2: td.tee_tcb_svn2.map(hex::encode),
                    td_attributes: hex::encode(td.attributes.to_le_bytes()),
                    xfam: hex::encode(td.xfam.to_le_bytes()),
                },
            },
            td_attributes: Attributes {
                debug: is(ATTRIBUTE_DEBUG),
                septve_disable: is(ATTRIBUTE_SEPT_VE_DISABLE),
                protection_keys: is(ATTRIBUTE_PKS),
                perfmon: is(ATTRIBUTE_PERFMON),
            },
            tcb_status: td.status,
            advisory_ids: td.advisories.clone(),
            tcb_date: date(td.tcb_date),
            tcb_eval_num: td.evaluation,
            collateral_issued: td.collateral_issued.as_secs(),
            collateral_expiration_status: "0".to_owned(),
            platform_provider_id: hex::encode(td.platform.ppid),
            platform_instance_id: td.platform.instance_id.map(hex::encode),
            fmspc: hex::encode(td.platform.fmspc),
            cpu_svn: hex::encode(td.platform.cpu_svn),
            pce_svn: td.platform.pce_svn,
            pce_id: hex::encode(td.platform.pce_id),
            is_dynamic_platform: td.platform.dynamic,
            is_cached_keys: td.platform.cached_keys,
            is_smt_enabled: td.platform.smt,
            event_log_replayed: td.replayed,
            launch_digest: hex::encode(td.launch_digest()),
            simulated: td.simulated,
        }
    }

    /// The verifier's form of the same.
    pub(super) fn verified(self, simulated: bool, mr_config_id: [u8; 48]) -> Result<VerifiedTd, TokenError> {
        let Quote { header, body } = self.quote;
        let optional = |text: Option<String>| text.map(|text| bytes(&text)).transpose();
        Ok(VerifiedTd {
            simulated,
            version: u16::from_le_bytes(bytes(&header.version)?),
            mrtd: bytes(&body.mr_td)?,
            rtmr: [
                bytes(&body.rtmr_0)?,
                bytes(&body.rtmr_1)?,
                bytes(&body.rtmr_2)?,
                bytes(&body.rtmr_3)?,
            ],
            mr_config_id,
            report_data: [0; 64],
            attributes: u64::from_le_bytes(bytes(&body.td_attributes)?),
            xfam: u64::from_le_bytes(bytes(&body.xfam)?),
            mr_seam: bytes(&body.mr_seam)?,
            tee_tcb_svn: bytes(&body.tcb_svn)?,
            tee_tcb_svn2: optional(body.tee_tcb_svn2)?,
            platform: Platform {
                ppid: bytes(&self.platform_provider_id)?,
                cpu_svn: bytes(&self.cpu_svn)?,
                pce_svn: self.pce_svn,
                pce_id: bytes(&self.pce_id)?,
                fmspc: bytes(&self.fmspc)?,
                instance_id: optional(self.platform_instance_id)?,
                dynamic: self.is_dynamic_platform,
                cached_keys: self.is_cached_keys,
                smt: self.is_smt_enabled,
            },
            status: self.tcb_status,
            advisories: self.advisory_ids,
            tcb_date: parse_date(&self.tcb_date)?,
            evaluation: self.tcb_eval_num,
            collateral_issued: Duration::from_secs(self.collateral_issued),
            replayed: self.event_log_replayed,
        })
    }
}

fn date(since_epoch: Duration) -> String {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or_default();
    let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    date.format(&Rfc3339).unwrap_or_default()
}

fn parse_date(text: &str) -> Result<Duration, TokenError> {
    let malformed = TokenError::Token(JwsError::Malformed);
    let date = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| malformed)?;
    u64::try_from(date.unix_timestamp())
        .map(Duration::from_secs)
        .map_err(|_| malformed)
}
