//! Conditions on TDX guests and platforms.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use x509_cert::der::DateTime;

use super::digests::{ConditionError, List};
use super::measurements::{ListOrAny, Lookup, MeasurementList};
use crate::reference::Measured;
use crate::tdx::{TcbException, TcbStatus, TdxOptions, VerifiedTd};

/// What an owner demands of a TDX guest and of its platform.
///
/// JSON in kebab-case. `mrtd`, `rtmr0`, `rtmr1` and `rtmr2` are mandatory: lists of 96 hex digits or `reference:<name>`, for `rtmr0` also `"any"`,
/// because it changes with QEMU, memory and devices. `rtmr3` is zero unless a list is given. Without `exceptions` only platforms that Intel calls up
/// to date are met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TdxConditions {
    mrtd: MeasurementList,
    rtmr0: ListOrAny,
    rtmr1: MeasurementList,
    rtmr2: MeasurementList,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rtmr3: Option<MeasurementList>,
    /// Demand the event log of the boot, which must have replayed to the registers.
    #[serde(default)]
    event_log: bool,
    /// Measurements of the TDX module; without a list any that Intel signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mr_seam: Option<List<48>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exceptions: Vec<Exception>,
    #[serde(default)]
    minimum_evaluation: u32,
    /// Lowest security versions of the TDX module: one entry of 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    minimum_tee_tcb_svn: Option<List<16>>,
    /// Platforms, by their instance id, or by their PPID where they have none; without a list any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platforms: Option<List<16>>,
    /// Families of platforms; without a list any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fmspcs: Option<List<6>>,
    #[serde(default)]
    refuse_smt: bool,
    #[serde(default)]
    refuse_dynamic_platform: bool,
}

/// A status other than up to date, with the advisories that are known and the date until which it is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Exception {
    status: TcbStatus,
    advisories: Vec<String>,
    #[serde(serialize_with = "write_date", deserialize_with = "read_date")]
    until: Duration,
}

impl TdxConditions {
    /// Whether a guest whose evidence was verified meets the conditions now; else the first that it does not.
    ///
    /// The verifier has accepted the guest's attributes before. It must have been told to accept every status that a rule may accept.
    /// `references` has the values of names in lists.
    ///
    /// # Errors
    /// [`ConditionError`].
    pub fn check(&self, guest: &VerifiedTd, now: Duration, references: &dyn Lookup) -> Result<(), ConditionError> {
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &guest.rtmr;
        self.mrtd.check("MRTD", &guest.mrtd, Measured::Mrtd, references)?;
        self.rtmr0.check("RTMR0", rtmr0, Measured::Rtmr0, references)?;
        self.rtmr1.check("RTMR1", rtmr1, Measured::Rtmr1, references)?;
        self.rtmr2.check("RTMR2", rtmr2, Measured::Rtmr2, references)?;
        match &self.rtmr3 {
            Some(list) => list.check("RTMR3", rtmr3, Measured::Rtmr3, references)?,
            None if *rtmr3 != [0; 48] => return Err(ConditionError::NotListed { list: "RTMR3" }),
            None => {}
        }
        if let Some(list) = &self.mr_seam {
            list.check("MRSEAM", &guest.mr_seam)?;
        }
        if let Some(list) = &self.fmspcs {
            list.check("FMSPC", &guest.platform.fmspc)?;
        }
        if self.event_log && !guest.replayed {
            return Err(ConditionError::Refused("event log missing"));
        }
        let refused = |error: crate::tdx::TdxError| ConditionError::Refused(error.class());
        self.options().judge_platform(guest, now).map_err(refused)
    }

    fn options(&self) -> TdxOptions {
        let exceptions = self.exceptions.iter().map(|exception| TcbException {
            status: exception.status,
            advisories: exception.advisories.clone(),
            until: exception.until,
        });
        let mut options = TdxOptions {
            exceptions: exceptions.collect(),
            minimum_evaluation: self.minimum_evaluation,
            allow_smt: !self.refuse_smt,
            allow_dynamic: !self.refuse_dynamic_platform,
            platforms: self.platforms.as_ref().map(|list| list.0.clone()),
            ..TdxOptions::default()
        };
        // Of several floors the highest of each component holds.
        for floor in self.minimum_tee_tcb_svn.iter().flat_map(|list| &list.0) {
            for (least, own) in options.minimum_tee_tcb_svn.iter_mut().zip(floor) {
                *least = (*least).max(*own);
            }
        }
        options
    }
}

fn read_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let date =
        DateTime::from_str(&text).map_err(|_| D::Error::custom("not a date of the form 2027-01-31T00:00:00Z"))?;
    Ok(date.unix_duration())
}

fn write_date<S: Serializer>(date: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let date = DateTime::from_unix_duration(*date).map_err(serde::ser::Error::custom)?;
    serializer.collect_str(&date)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::conditions::NoReferences;
    use crate::tdx::Platform;

    fn guest() -> VerifiedTd {
        VerifiedTd {
            simulated: false,
            version: 4,
            mrtd: [1; 48],
            rtmr: [[2; 48], [3; 48], [4; 48], [0; 48]],
            mr_config_id: [5; 48],
            report_data: [6; 64],
            attributes: 1 << 28,
            xfam: 0xe7,
            mr_seam: [7; 48],
            tee_tcb_svn: [8; 16],
            tee_tcb_svn2: None,
            platform: Platform {
                ppid: [9; 16],
                cpu_svn: [1; 16],
                pce_svn: 1,
                pce_id: [0; 2],
                fmspc: [0; 6],
                instance_id: None,
                dynamic: Some(true),
                cached_keys: Some(true),
                smt: Some(true),
            },
            status: TcbStatus::UpToDate,
            advisories: Vec::new(),
            tcb_date: Duration::ZERO,
            evaluation: 17,
            collateral_issued: Duration::ZERO,
            replayed: false,
        }
    }

    fn hex48(byte: &str) -> String {
        byte.repeat(48)
    }

    fn conditions(change: impl FnOnce(&mut Value)) -> TdxConditions {
        let mut json = json!({
            "mrtd": [hex48("01")], "rtmr0": "any", "rtmr1": [hex48("03")], "rtmr2": [hex48("ff"), hex48("04")],
        });
        change(&mut json);
        serde_json::from_value(json).unwrap()
    }

    const NOW: Duration = Duration::from_secs(1_750_000_000);

    #[test]
    fn each_condition_alone() {
        assert_eq!(conditions(|_| {}).check(&guest(), NOW, &NoReferences), Ok(()));
        let listed = |list| Some(ConditionError::NotListed { list });
        let refused = |class| Some(ConditionError::Refused(class));
        let cases = [
            ("mrtd", json!([]), listed("MRTD")),
            ("rtmr0", json!([hex48("02")]), None),
            ("rtmr0", json!([]), listed("RTMR0")),
            ("rtmr1", json!([hex48("04")]), listed("RTMR1")),
            ("rtmr2", json!([]), listed("RTMR2")),
            ("rtmr3", json!([hex48("00")]), None),
            ("rtmr3", json!([hex48("01")]), listed("RTMR3")),
            ("mr-seam", json!([hex48("07")]), None),
            ("mr-seam", json!([]), listed("MRSEAM")),
            ("minimum-evaluation", json!(17), None),
            ("minimum-evaluation", json!(18), refused("collateral too old")),
            ("minimum-tee-tcb-svn", json!(["08".repeat(16)]), None),
            (
                "minimum-tee-tcb-svn",
                json!(["09".repeat(16)]),
                refused("platform TCB too old"),
            ),
            ("platforms", json!(["09".repeat(16)]), None),
            ("platforms", json!([]), refused("platform not allowed")),
            ("fmspcs", json!(["00".repeat(6)]), None),
            ("fmspcs", json!(["01".repeat(6)]), listed("FMSPC")),
            ("event-log", json!(true), refused("event log missing")),
            ("mrtd", json!(["reference:guest"]), refused("reference values unknown")),
            ("refuse-smt", json!(true), refused("platform configuration refused")),
            (
                "refuse-dynamic-platform",
                json!(true),
                refused("platform configuration refused"),
            ),
        ];
        for (member, value, expected) in cases {
            let conditions = conditions(|json| json[member] = value.clone());
            assert_eq!(
                conditions.check(&guest(), NOW, &NoReferences).err(),
                expected,
                "{member}: {value}"
            );
        }
        let mut extended = guest();
        extended.rtmr[3] = [1; 48];
        assert_eq!(
            conditions(|_| {}).check(&extended, NOW, &NoReferences).err(),
            listed("RTMR3")
        );
    }

    #[test]
    fn t23_exceptions_have_an_end() {
        let behind = VerifiedTd {
            status: TcbStatus::OutOfDate,
            advisories: vec!["INTEL-SA-1".to_owned()],
            ..guest()
        };
        let refused = Err(ConditionError::Refused("platform TCB status not accepted"));
        assert_eq!(conditions(|_| {}).check(&behind, NOW, &NoReferences), refused);
        let exception = json!([{"status": "OutOfDate", "advisories": ["INTEL-SA-1"], "until": "2025-06-15T15:06:41Z"}]);
        let conditions = conditions(|json| json["exceptions"] = exception);
        assert_eq!(conditions.check(&behind, NOW, &NoReferences), Ok(()));
        assert_eq!(
            conditions.check(&behind, NOW + Duration::from_secs(1), &NoReferences),
            refused
        );
    }

    #[test]
    fn t23_each_tcb_status_under_each_policy() {
        use TcbStatus::*;
        let all = [
            UpToDate,
            SWHardeningNeeded,
            ConfigurationNeeded,
            ConfigurationAndSWHardeningNeeded,
            OutOfDate,
            OutOfDateConfigurationNeeded,
            TDRelaunchAdvised,
            TDRelaunchAdvisedConfigurationNeeded,
            Revoked,
        ];
        let until = "2027-01-31T00:00:00Z";
        let refused = Err(ConditionError::Refused("platform TCB status not accepted"));
        for status in all {
            let is = |advisories: &[&str]| VerifiedTd {
                status,
                advisories: advisories.iter().map(|id| (*id).to_owned()).collect(),
                ..guest()
            };
            let by_default = conditions(|_| {});
            let expected = if status == UpToDate { Ok(()) } else { refused };
            assert_eq!(by_default.check(&is(&[]), NOW, &NoReferences), expected, "{status}");
            assert_eq!(
                by_default.check(&is(&["SA-1"]), NOW, &NoReferences),
                refused,
                "{status}"
            );
            for excepted in all {
                let exception = json!([{"status": excepted, "advisories": ["SA-1", "SA-2"], "until": until}]);
                let policy = conditions(|json| json["exceptions"] = exception);
                let accepted = status == excepted && status != Revoked;
                let expected = if accepted { Ok(()) } else { refused };
                for known in [&["SA-1"][..], &["SA-2", "SA-1"]] {
                    let found = policy.check(&is(known), NOW, &NoReferences);
                    assert_eq!(found, expected, "{status} under an exception for {excepted}");
                }
                // An advisory that is not on the list.
                let found = policy.check(&is(&["SA-1", "SA-3"]), NOW, &NoReferences);
                assert_eq!(found, refused, "{status} under an exception for {excepted}");
            }
        }
    }

    #[test]
    fn the_form_is_strict_and_round_trips() {
        let all = conditions(|json| {
            json["exceptions"] = json!([{"status": "OutOfDate", "advisories": [], "until": "2027-01-31T00:00:00Z"}]);
            json["rtmr0"] = json!([hex48("02")]);
        });
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(serde_json::from_value::<TdxConditions>(json.clone()).unwrap(), all);
        for member in ["mrtd", "rtmr0", "rtmr1", "rtmr2"] {
            let mut without = json.clone();
            without.as_object_mut().unwrap().remove(member);
            assert!(
                serde_json::from_value::<TdxConditions>(without).is_err(),
                "without {member}"
            );
        }
        for (member, value) in [
            ("mrtd", json!("any")),
            ("rtmr0", json!("all")),
            ("rtmr0", json!(["02"])),
            ("allow-debug", json!(true)),
            (
                "exceptions",
                json!([{"status": "Fine", "advisories": [], "until": "2027-01-31T00:00:00Z"}]),
            ),
            ("exceptions", json!([{"status": "OutOfDate", "advisories": []}])),
            (
                "exceptions",
                json!([{"status": "OutOfDate", "advisories": [], "until": "2027-01-31"}]),
            ),
            ("mrtd", json!(vec![hex48("01"); 257])),
        ] {
            let mut other = json.clone();
            other[member] = value;
            assert!(
                serde_json::from_value::<TdxConditions>(other.clone()).is_err(),
                "{member}: {}",
                other[member]
            );
        }
    }
}
