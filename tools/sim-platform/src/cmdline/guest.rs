//! The object that QEMU would hand to the security processor or to the TDX module.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{CmdlineError, decimal, keyval::KeyVals};

/// What would protect the guest, with what is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestObject {
    /// `sev-snp-guest`, which QEMU makes under any accelerator and uses under KVM only.
    Snp {
        /// Guest policy of the launch.
        policy: u64,
        /// HOST_DATA of the launch; zeros when none was given.
        host_data: [u8; 32],
    },
    /// `tdx-guest`. QEMU knows it since 10.1 only, so the shim writes what it would be into an object that QEMU makes and nothing uses: the
    /// identity of an `authz-simple`.
    Tdx {
        /// The guest's attributes, debugging among them.
        attributes: u64,
        /// MRCONFIGID of the launch; zeros when none was given.
        mr_config_id: [u8; 48],
    },
}

impl GuestObject {
    /// Reads the value of an `-object`; `None` when it is an object of another type.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, CmdlineError> {
        let unreadable = |reason| CmdlineError::Value {
            option: "-object",
            reason,
        };
        if text.starts_with('{') {
            let json: serde_json::Value = serde_json::from_str(text).map_err(|_| unreadable("not JSON"))?;
            return match json.get("qom-type").and_then(serde_json::Value::as_str) {
                Some("sev-snp-guest" | "tdx-guest" | "authz-simple") => {
                    Err(unreadable("only the key=value form of such an object is read"))
                }
                _ => Ok(None),
            };
        }
        let values = KeyVals::parse(text, "qom-type").map_err(unreadable)?;
        match values.find("qom-type") {
            Some("sev-snp-guest") => snp(&values).map(Some),
            Some("authz-simple") => stand_in(&values),
            Some("tdx-guest") => Err(CmdlineError::Value {
                option: "-object tdx-guest",
                reason: "a TDX guest is real, or simulated by the object in its place; this is neither",
            }),
            _ => Ok(None),
        }
    }
}

fn snp(values: &KeyVals) -> Result<GuestObject, CmdlineError> {
    let wrong = |reason| CmdlineError::Value {
        option: "-object sev-snp-guest",
        reason,
    };
    let known = [
        "qom-type",
        "id",
        "cbitpos",
        "reduced-phys-bits",
        "policy",
        "kernel-hashes",
        "host-data",
    ];
    if !values.keys().all(|key| known.contains(&key)) {
        return Err(wrong("a property that is not simulated"));
    }
    if values.find("kernel-hashes") != Some("on") {
        return Err(wrong("without kernel-hashes=on nothing of the kernel is measured"));
    }
    // QEMU's own default: SMT allowed, no debugging.
    let policy = values.find("policy").map_or(Some(0x30000), number);
    let host_data = values.find("host-data").map_or(Some([0; 32]), bytes);
    Ok(GuestObject::Snp {
        policy: policy.ok_or(wrong("policy is not a number"))?,
        host_data: host_data.ok_or(wrong("host-data is not base64 of 32 bytes"))?,
    })
}

/// The object in the place of a `tdx-guest`. One that stands for something else is another's, and means nothing here.
fn stand_in(values: &KeyVals) -> Result<Option<GuestObject>, CmdlineError> {
    let Some(identity) = values.find("identity").filter(|text| text.starts_with("tdx-guest")) else {
        return Ok(None);
    };
    let wrong = |reason| CmdlineError::Value {
        option: "-object authz-simple in the place of tdx-guest",
        reason,
    };
    let values = KeyVals::parse(identity, "qom-type").map_err(wrong)?;
    let known = ["qom-type", "attributes", "sept-ve-disable", "mrconfigid"];
    if values.find("qom-type") != Some("tdx-guest") || !values.keys().all(|key| known.contains(&key)) {
        return Err(wrong("a property that is not simulated"));
    }
    let attributes = values.find("attributes").map_or(Some(0), number);
    let attributes = attributes.ok_or(wrong("attributes is not a number"))?;
    // QEMU's own default is on.
    let sept_ve_disable = match values.find("sept-ve-disable") {
        None | Some("on") => SEPT_VE_DISABLE,
        Some("off") => 0,
        Some(_) => return Err(wrong("sept-ve-disable is neither on nor off")),
    };
    let mr_config_id = values.find("mrconfigid").map_or(Some([0; 48]), bytes);
    Ok(Some(GuestObject::Tdx {
        attributes: attributes | sept_ve_disable,
        mr_config_id: mr_config_id.ok_or(wrong("mrconfigid is not base64 of 48 bytes"))?,
    }))
}

/// The attribute's bit.
const SEPT_VE_DISABLE: u64 = cella_attest::tdx::ATTRIBUTE_SEPT_VE_DISABLE;

/// A number, hexadecimal or decimal.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => decimal(text).map(u64::from),
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
