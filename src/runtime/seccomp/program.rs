//! From a profile to a BPF program: one block per action, in the order in which the actions first appear. A block ends
//! with its action for what its rules match, and leads to the next for all else; the last leads to the default.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::runtime::Error;
use crate::sys::seccomp::{INSTRUCTION, system_calls};

/// What is done with each system call.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) rules: Vec<Rule>,
    /// For those that no rule matches.
    pub(super) otherwise: SeccompAction,
}

/// What is done with some of them, if all conditions hold.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) conditions: Vec<Condition>,
    pub(super) action: SeccompAction,
}

/// A comparison of an argument.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) length: SeccompCmpArgLen,
    pub(super) operator: SeccompCmpOp,
    pub(super) value: u64,
}

/// Marks, in a block, where the next one begins. No profile can have this action: it is not among those of the
/// specification with this number.
const NEXT: SeccompAction = SeccompAction::Trace(0x6b70);
/// `BPF_RET | BPF_K` and `BPF_JMP | BPF_JA`.
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
/// The kernel's limit.
const LONGEST: usize = 4096;
const EPERM: u32 = 1;

/// The program's bytes, as the kernel takes them.
pub(super) fn compile(profile: &Profile) -> Result<Vec<u8>, Error> {
    let numbers = system_calls();
    let mut actions: Vec<&SeccompAction> = Vec::new();
    for rule in &profile.rules {
        if rule.action != profile.otherwise && !actions.contains(&&rule.action) {
            actions.push(&rule.action);
        }
    }
    let mut program = BpfProgram::new();
    for action in actions {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        let mut always = Vec::new();
        for rule in profile.rules.iter().filter(|rule| rule.action == *action) {
            // Names of other architectures, or of newer kernels, mean nothing here.
            for number in rule
                .names
                .iter()
                .filter_map(|name| numbers.get(name.as_str()).copied())
            {
                let list = rules.entry(number).or_default();
                if rule.conditions.is_empty() {
                    always.push(number);
                } else {
                    list.push(conditional(&rule.conditions)?);
                }
            }
        }
        // An empty list of rules matches always, whatever other rules say.
        for number in always {
            rules.insert(number, Vec::new());
        }
        if !rules.is_empty() {
            append(&mut program, block(rules, action.clone())?);
        }
    }
    program.push(sock_filter {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: u32::from(profile.otherwise.clone()),
    });
    if program.len() > LONGEST {
        return Err(invalid("it is too long for the kernel"));
    }
    Ok(bytes(&program))
}

fn block(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    action: SeccompAction,
) -> Result<BpfProgram, Error> {
    let architecture =
        TargetArch::try_from(std::env::consts::ARCH).map_err(|e| invalid(e.to_string()))?;
    let filter = SeccompFilter::new(rules, NEXT, action, architecture)
        .map_err(|e| invalid(e.to_string()))?;
    filter
        .try_into()
        .map_err(|e: seccompiler::BackendError| invalid(e.to_string()))
}

/// Appends a block whose answer for what it does not match becomes a jump to its end.
fn append(program: &mut BpfProgram, mut block: BpfProgram) {
    let length = block.len();
    for (index, instruction) in block.iter_mut().enumerate() {
        if instruction.code == RETURN && instruction.k == u32::from(NEXT) {
            instruction.code = JUMP;
            instruction.k = u32::try_from(length - index - 1).unwrap_or(u32::MAX);
        }
    }
    program.append(&mut block);
}

fn conditional(conditions: &[Condition]) -> Result<SeccompRule, Error> {
    let conditions = conditions
        .iter()
        .map(|c| SeccompCondition::new(c.argument, c.length.clone(), c.operator.clone(), c.value))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| invalid(e.to_string()))?;
    SeccompRule::new(conditions).map_err(|e| invalid(e.to_string()))
}

fn bytes(program: &BpfProgram) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * INSTRUCTION);
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes
}

/// Reads a profile of the runtime specification as runc does.
pub(super) fn from_specification(profile: &LinuxSeccomp) -> Result<Profile, Error> {
    let mut rules = Vec::new();
    for call in profile.syscalls().iter().flatten() {
        let action = action(call.action(), call.errno_ret())?;
        let arguments = call.args().as_deref().unwrap_or_default();
        let conditions = arguments
            .iter()
            .map(condition)
            .collect::<Result<Vec<_>, _>>()?;
        let mut indices: Vec<u8> = conditions.iter().map(|c| c.argument).collect();
        indices.sort_unstable();
        indices.dedup();
        // Several conditions on one argument are alternatives: libseccomp cannot have them in one rule, so runc makes
        // a rule of each.
        let alternatives = if indices.len() < conditions.len() {
            conditions
                .into_iter()
                .map(|condition| vec![condition])
                .collect()
        } else {
            vec![conditions]
        };
        rules.extend(alternatives.into_iter().map(|conditions| Rule {
            names: call.names().clone(),
            conditions,
            action: action.clone(),
        }));
    }
    Ok(Profile {
        rules,
        otherwise: action(profile.default_action(), profile.default_errno_ret())?,
    })
}

fn action(action: LinuxSeccompAction, number: Option<u32>) -> Result<SeccompAction, Error> {
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            SeccompAction::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => SeccompAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => SeccompAction::Trap,
        LinuxSeccompAction::ScmpActErrno => SeccompAction::Errno(number.unwrap_or(EPERM)),
        LinuxSeccompAction::ScmpActTrace => SeccompAction::Trace(number.unwrap_or(EPERM)),
        LinuxSeccompAction::ScmpActLog => SeccompAction::Log,
        LinuxSeccompAction::ScmpActAllow => SeccompAction::Allow,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(invalid("it has the action SCMP_ACT_NOTIFY"));
        }
    })
}

fn condition(argument: &LinuxSeccompArg) -> Result<Condition, Error> {
    let value = argument.value();
    let (operator, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, value),
        LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, value),
        LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, value),
        LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, value),
        LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, value),
        LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, value),
        // The first value is the mask.
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            SeccompCmpOp::MaskedEq(value),
            argument.value_two().unwrap_or(0),
        ),
    };
    Ok(Condition {
        argument: u8::try_from(argument.index())
            .map_err(|_| invalid("an argument's index is above 5"))?,
        length: SeccompCmpArgLen::Qword,
        operator,
        value,
    })
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::Seccomp {
        detail: detail.into(),
    }
}
