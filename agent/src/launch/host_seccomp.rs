//! The host's system call filter: the OCI form in, BPF programs out.
//!
//! It comes from the untrusted host and is only ever put on top of the agent's own filter, where the policy says so: the
//! kernel takes the strictest answer of all filters, so that the host can forbid and never allow. Names that x86-64 does
//! not have are passed over, as runc does it; anything else that is not understood is refused by name.
//!
//! One BPF program answers one action beside its default. The first lets everything pass that any rule names and gives
//! the rest the filter's default; then comes one for each action other than "allow".

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

use super::syscall_names;

/// A filter that has been understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSeccomp {
    default: Action,
    rules: Vec<Rule>,
}

/// One action for one system call, whose conditions must all hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    number: i64,
    action: Action,
    conditions: Vec<Condition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    Allow,
    Log,
    Errno(u32),
    Trap,
    KillThread,
    KillProcess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    argument: u8,
    comparison: Comparison,
    value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Comparison {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    /// Equal under this mask.
    Masked(u64),
}

/// Why the host's filter is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostSeccompError {
    /// Too long to read.
    #[error("the seccomp filter has {bytes} bytes; at most {MAX_BYTES} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not the OCI form.
    #[error("the seccomp filter is not in the OCI form: {reason}")]
    Form {
        /// Where and why.
        reason: String,
    },
    /// An action that this agent does not carry out.
    #[error("the seccomp filter's action {0:?} is not supported")]
    Action(String),
    /// A comparison that is none.
    #[error("the seccomp filter's operator {0:?} is not supported")]
    Operator(String),
    /// There are six arguments.
    #[error("the seccomp filter looks at argument {0}; system calls have 0 to 5")]
    Argument(u64),
    /// Errors have small numbers.
    #[error("the seccomp filter answers errno {0}; there are 0 to 4095")]
    Errno(u64),
    /// More than a kernel takes.
    #[error("the seccomp filter is too large for the kernel")]
    TooLarge,
}

/// As in the runtime specification; what is not here (architectures, flags) makes no difference on this machine.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciFilter {
    default_action: String,
    default_errno_ret: Option<u64>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    syscalls: Vec<OciRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciRule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u64>,
    #[serde(default)]
    args: Option<Vec<OciArgument>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciArgument {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

impl HostSeccomp {
    /// Reads the `linux.seccomp` object of an OCI specification. Bounded, and checked to fit into the kernel.
    pub fn parse(json: &[u8]) -> Result<Self, HostSeccompError> {
        if json.len() > MAX_BYTES {
            return Err(HostSeccompError::TooLong { bytes: json.len() });
        }
        let filter: OciFilter = serde_json::from_slice(json).map_err(|error| HostSeccompError::Form {
            reason: error.to_string(),
        })?;
        if !filter.listener_path.is_empty() {
            return Err(HostSeccompError::Action("SCMP_ACT_NOTIFY".to_owned()));
        }
        let default = action(&filter.default_action, filter.default_errno_ret)?;
        let mut rules = Vec::new();
        for rule in &filter.syscalls {
            let action = action(&rule.action, rule.errno_ret)?;
            let alternatives = alternatives(rule.args.as_deref().unwrap_or_default())?;
            for number in rule.names.iter().filter_map(|name| syscall_names::number(name)) {
                rules.extend(alternatives.iter().map(|conditions| Rule {
                    number,
                    action,
                    conditions: conditions.clone(),
                }));
            }
        }
        let filter = Self { default, rules };
        let programs = filter.programs().map_err(|_| HostSeccompError::TooLarge)?;
        if programs.iter().any(|program| program.len() > MAX_INSTRUCTIONS) {
            return Err(HostSeccompError::TooLarge);
        }
        Ok(filter)
    }

    /// The programs, in the order in which they are to be installed.
    pub(super) fn programs(&self) -> Result<Vec<BpfProgram>, BackendError> {
        let mut programs = Vec::new();
        if self.default != Action::Allow {
            programs.push(program(self.rules.iter(), Action::Allow, self.default)?);
        }
        let mut actions: Vec<Action> = self.rules.iter().map(|rule| rule.action).collect();
        actions.sort_unstable();
        actions.dedup();
        for action in actions.into_iter().filter(|action| *action != Action::Allow) {
            let rules = self.rules.iter().filter(|rule| rule.action == action);
            programs.push(program(rules, action, Action::Allow)?);
        }
        Ok(programs)
    }
}

fn action(name: &str, errno: Option<u64>) -> Result<Action, HostSeccompError> {
    let errno = errno.unwrap_or(EPERM);
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_ERRNO" => match u32::try_from(errno) {
            Ok(number) if number <= MAX_ERRNO => Action::Errno(number),
            _ => return Err(HostSeccompError::Errno(errno)),
        },
        other => return Err(HostSeccompError::Action(other.chars().take(MAX_SHOWN).collect())),
    })
}

/// Sets of conditions, any of which is enough. As runc reads it: all conditions must hold, but where one argument is looked
/// at twice, one of them is enough.
fn alternatives(arguments: &[OciArgument]) -> Result<Vec<Vec<Condition>>, HostSeccompError> {
    let conditions = arguments.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let mut seen = [0_u8; 6];
    for condition in &conditions {
        if let Some(count) = seen.get_mut(usize::from(condition.argument)) {
            *count = count.saturating_add(1);
        }
    }
    Ok(if seen.iter().any(|count| *count > 1) {
        conditions.into_iter().map(|one| vec![one]).collect()
    } else {
        vec![conditions]
    })
}

fn condition(argument: &OciArgument) -> Result<Condition, HostSeccompError> {
    let index = u8::try_from(argument.index).ok().filter(|index| *index < 6);
    let (comparison, value) = match argument.op.as_str() {
        "SCMP_CMP_NE" => (Comparison::Ne, argument.value),
        "SCMP_CMP_LT" => (Comparison::Lt, argument.value),
        "SCMP_CMP_LE" => (Comparison::Le, argument.value),
        "SCMP_CMP_EQ" => (Comparison::Eq, argument.value),
        "SCMP_CMP_GE" => (Comparison::Ge, argument.value),
        "SCMP_CMP_GT" => (Comparison::Gt, argument.value),
        "SCMP_CMP_MASKED_EQ" => (Comparison::Masked(argument.value), argument.value_two),
        other => return Err(HostSeccompError::Operator(other.chars().take(MAX_SHOWN).collect())),
    };
    Ok(Condition {
        argument: index.ok_or(HostSeccompError::Argument(argument.index))?,
        comparison,
        value,
    })
}

fn program<'r>(
    rules: impl Iterator<Item = &'r Rule>,
    matched: Action,
    otherwise: Action,
) -> Result<BpfProgram, BackendError> {
    let mut by_number: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut always = Vec::new();
    for rule in rules {
        let known = by_number.entry(rule.number).or_default();
        if rule.conditions.is_empty() {
            always.push(rule.number);
        } else {
            let conditions = rule
                .conditions
                .iter()
                .map(|one| one.compile())
                .collect::<Result<_, _>>()?;
            known.push(SeccompRule::new(conditions)?);
        }
    }
    // A rule without conditions makes the others for its call superfluous.
    for number in always {
        by_number.insert(number, Vec::new());
    }
    SeccompFilter::new(by_number, otherwise.compile(), matched.compile(), TargetArch::x86_64)?.try_into()
}

impl Action {
    fn compile(self) -> SeccompAction {
        match self {
            Self::Allow => SeccompAction::Allow,
            Self::Log => SeccompAction::Log,
            Self::Errno(number) => SeccompAction::Errno(number),
            Self::Trap => SeccompAction::Trap,
            Self::KillThread => SeccompAction::KillThread,
            Self::KillProcess => SeccompAction::KillProcess,
        }
    }
}

impl Condition {
    fn compile(self) -> Result<SeccompCondition, BackendError> {
        let operator = match self.comparison {
            Comparison::Ne => SeccompCmpOp::Ne,
            Comparison::Lt => SeccompCmpOp::Lt,
            Comparison::Le => SeccompCmpOp::Le,
            Comparison::Eq => SeccompCmpOp::Eq,
            Comparison::Ge => SeccompCmpOp::Ge,
            Comparison::Gt => SeccompCmpOp::Gt,
            Comparison::Masked(mask) => SeccompCmpOp::MaskedEq(mask),
        };
        SeccompCondition::new(self.argument, SeccompCmpArgLen::Qword, operator, self.value)
    }
}

/// containerd's default filter has some 10 KiB.
const MAX_BYTES: usize = 256 << 10;

/// `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

/// `MAX_ERRNO` of `linux/err.h`.
const MAX_ERRNO: u32 = 4095;

const EPERM: u64 = 1;

/// Characters of the host's text that are repeated.
const MAX_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["read", "no_such_call", "write"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0, "valueTwo": 0, "op": "SCMP_CMP_EQ"},
                {"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "args": null}
        ]}"#;

    fn refused(change: (&str, &str)) -> HostSeccompError {
        assert!(FILTER.contains(change.0), "{}", change.0);
        HostSeccomp::parse(FILTER.replace(change.0, change.1).as_bytes()).unwrap_err()
    }

    #[test]
    fn containerds_form_is_understood() {
        let filter = HostSeccomp::parse(FILTER.as_bytes()).unwrap();
        assert_eq!(filter.default, Action::Errno(1));
        let numbers: Vec<i64> = filter.rules.iter().map(|rule| rule.number).collect();
        assert_eq!(
            numbers,
            [
                libc::SYS_read,
                libc::SYS_write,
                libc::SYS_socket,
                libc::SYS_personality,
                libc::SYS_personality,
                libc::SYS_clone,
                libc::SYS_clone3
            ]
        );
        assert_eq!(filter.rules.last().unwrap().action, Action::Errno(38));
        assert_eq!(filter.programs().unwrap().len(), 2);
        let json = serde_json::to_vec(&filter).unwrap();
        assert_eq!(serde_json::from_slice::<HostSeccomp>(&json).unwrap(), filter);
    }

    #[test]
    fn a_filter_that_only_denies_is_one_program_for_each_action() {
        let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}, {"names": ["chmod"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["chown"], "action": "SCMP_ACT_ALLOW"}]}"#;
        assert_eq!(
            HostSeccomp::parse(json.as_bytes()).unwrap().programs().unwrap().len(),
            2
        );
        let nothing = HostSeccomp::parse(br#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        assert_eq!(nothing.programs().unwrap().len(), 0);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        assert_eq!(
            refused((r#""SCMP_ACT_ERRNO", "errnoRet""#, r#""SCMP_ACT_NOTIFY", "errnoRet""#)),
            HostSeccompError::Action("SCMP_ACT_NOTIFY".into())
        );
        assert_eq!(
            refused((
                r#""SCMP_ACT_ERRNO", "defaultErrnoRet""#,
                r#""SCMP_ACT_TRACE", "defaultErrnoRet""#
            )),
            HostSeccompError::Action("SCMP_ACT_TRACE".into())
        );
        assert_eq!(
            refused(("SCMP_CMP_NE", "SCMP_CMP_ODD")),
            HostSeccompError::Operator("SCMP_CMP_ODD".into())
        );
        assert_eq!(
            refused((r#""index": 0, "value": 40"#, r#""index": 6, "value": 40"#)),
            HostSeccompError::Argument(6)
        );
        assert_eq!(refused((": 38", ": 5000")), HostSeccompError::Errno(5000));
        assert!(matches!(HostSeccomp::parse(b"[]"), Err(HostSeccompError::Form { .. })));
        assert_eq!(
            HostSeccomp::parse(&vec![b' '; MAX_BYTES + 1]),
            Err(HostSeccompError::TooLong { bytes: MAX_BYTES + 1 })
        );
    }

    #[test]
    fn a_filter_that_the_kernel_would_not_take_is_refused() {
        let rule = r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 77, "op": "SCMP_CMP_GT"}]}"#;
        let rules = vec![rule; 1000].join(",");
        let json = format!(r#"{{"defaultAction": "SCMP_ACT_KILL", "syscalls": [{rules}]}}"#);
        assert_eq!(HostSeccomp::parse(json.as_bytes()), Err(HostSeccompError::TooLarge));
    }
}
