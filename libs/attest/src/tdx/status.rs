//! How far behind a platform is, in Intel's words (PCS API, "tcbStatus").

use serde::{Deserialize, Serialize};

/// Intel's judgement of a platform at a TCB. The order is not one of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TcbStatus {
    /// Nothing is missing.
    UpToDate,
    /// Software inside the guest must mitigate something.
    SWHardeningNeeded,
    /// The platform must be configured otherwise.
    ConfigurationNeeded,
    /// Both of these.
    ConfigurationAndSWHardeningNeeded,
    /// Firmware is too old.
    OutOfDate,
    /// Firmware is too old, and the platform must be configured otherwise.
    OutOfDateConfigurationNeeded,
    /// The guest was launched under a TDX module that is too old and runs under one that is not: it should be launched again. Never said by
    /// Intel's documents, only computed.
    TDRelaunchAdvised,
    /// The same, and the platform must be configured otherwise.
    TDRelaunchAdvisedConfigurationNeeded,
    /// The platform's keys are known to others.
    Revoked,
}

impl std::fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// What a status consists of, so that the statuses of several parts can be put together: each part's troubles are the whole's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Troubles {
    hardening: bool,
    configuration: bool,
    relaunch: bool,
    out_of_date: bool,
    revoked: bool,
}

impl TcbStatus {
    /// The status of a platform of two parts.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        let (a, b) = (self.troubles(), other.troubles());
        Self::from(Troubles {
            hardening: a.hardening || b.hardening,
            configuration: a.configuration || b.configuration,
            relaunch: a.relaunch || b.relaunch,
            out_of_date: a.out_of_date || b.out_of_date,
            revoked: a.revoked || b.revoked,
        })
    }

    /// The status of a guest that was launched under one TCB and now runs under another.
    #[must_use]
    pub(super) fn now(self, current: Self) -> Self {
        let (launch, now) = (self.troubles(), current.troubles());
        let caught_up = launch.out_of_date && !now.out_of_date;
        Self::from(Troubles {
            hardening: launch.hardening || now.hardening,
            configuration: launch.configuration || now.configuration,
            relaunch: caught_up,
            out_of_date: now.out_of_date,
            revoked: launch.revoked || now.revoked,
        })
    }

    fn troubles(self) -> Troubles {
        let none = Troubles::default();
        let configuration = true;
        match self {
            Self::UpToDate => none,
            Self::SWHardeningNeeded => Troubles {
                hardening: true,
                ..none
            },
            Self::ConfigurationNeeded => Troubles { configuration, ..none },
            Self::ConfigurationAndSWHardeningNeeded => Troubles {
                configuration,
                hardening: true,
                ..none
            },
            Self::OutOfDate => Troubles {
                out_of_date: true,
                ..none
            },
            Self::OutOfDateConfigurationNeeded => Troubles {
                out_of_date: true,
                configuration,
                ..none
            },
            Self::TDRelaunchAdvised => Troubles { relaunch: true, ..none },
            Self::TDRelaunchAdvisedConfigurationNeeded => Troubles {
                relaunch: true,
                configuration,
                ..none
            },
            Self::Revoked => Troubles { revoked: true, ..none },
        }
    }
}

impl From<Troubles> for TcbStatus {
    fn from(troubles: Troubles) -> Self {
        match troubles {
            Troubles { revoked: true, .. } => Self::Revoked,
            Troubles {
                out_of_date: true,
                configuration,
                ..
            } => {
                if configuration {
                    Self::OutOfDateConfigurationNeeded
                } else {
                    Self::OutOfDate
                }
            }
            Troubles {
                relaunch: true,
                configuration,
                ..
            } => {
                if configuration {
                    Self::TDRelaunchAdvisedConfigurationNeeded
                } else {
                    Self::TDRelaunchAdvised
                }
            }
            Troubles {
                configuration: true,
                hardening,
                ..
            } => {
                if hardening {
                    Self::ConfigurationAndSWHardeningNeeded
                } else {
                    Self::ConfigurationNeeded
                }
            }
            Troubles { hardening: true, .. } => Self::SWHardeningNeeded,
            Troubles { .. } => Self::UpToDate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{TcbStatus::*, *};

    const ALL: [TcbStatus; 9] = [
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

    /// Intel's quote verification library converges a platform with a module or quoting enclave so.
    #[test]
    fn parts_converge_as_intels_do() {
        for (platform, part, expected) in [
            (UpToDate, OutOfDate, OutOfDate),
            (SWHardeningNeeded, OutOfDate, OutOfDate),
            (ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded),
            (
                ConfigurationAndSWHardeningNeeded,
                OutOfDate,
                OutOfDateConfigurationNeeded,
            ),
            (OutOfDateConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded),
            (OutOfDate, UpToDate, OutOfDate),
            (
                SWHardeningNeeded,
                ConfigurationNeeded,
                ConfigurationAndSWHardeningNeeded,
            ),
            (TDRelaunchAdvised, OutOfDate, OutOfDate),
            (UpToDate, Revoked, Revoked),
        ] {
            assert_eq!(platform.and(part), expected, "{platform} and {part}");
            assert_eq!(part.and(platform), expected, "{part} and {platform}");
        }
    }

    #[test]
    fn nothing_makes_a_status_better() {
        for status in ALL {
            assert_eq!(status.and(UpToDate), status);
            assert_eq!(status.and(status), status);
            assert_eq!(status.and(Revoked), Revoked);
            assert!(
                ALL.iter()
                    .all(|other| status == UpToDate || status.and(*other) != UpToDate)
            );
        }
    }

    #[test]
    fn a_guest_under_an_updated_module_should_be_launched_again() {
        for (launch, now, expected) in [
            (UpToDate, UpToDate, UpToDate),
            (OutOfDate, UpToDate, TDRelaunchAdvised),
            (OutOfDate, ConfigurationNeeded, TDRelaunchAdvisedConfigurationNeeded),
            (
                OutOfDateConfigurationNeeded,
                UpToDate,
                TDRelaunchAdvisedConfigurationNeeded,
            ),
            (OutOfDate, OutOfDate, OutOfDate),
            (UpToDate, OutOfDate, OutOfDate),
            (OutOfDate, Revoked, Revoked),
            (Revoked, UpToDate, Revoked),
        ] {
            assert_eq!(launch.now(now), expected, "{launch}, then {now}");
        }
    }
}
