//! From a profile to a BPF program: a search for the architecture, then for the number of the system call, by halves;
//! what is found there is an action, or comparisons of arguments that lead to one.
//!
//! The kernel runs a program once per number to learn which calls it always allows, and then no more for those. It can
//! do so only with loads of number and architecture, jumps and returns, which is all that comes before the comparisons.

use std::collections::BTreeMap;

use crate::runtime::Error;
use crate::sys::seccomp::{Architecture, INSTRUCTION};

/// What is done with each system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    /// Processes of others are killed at their first call.
    pub(super) architectures: Vec<Architecture>,
    pub(super) rules: Vec<Rule>,
    /// For those that no rule matches.
    pub(super) otherwise: Action,
}

/// What is done with some of them, if all conditions hold. Of several rules for a call those with conditions count
/// first, and the first of those that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// A comparison of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) width: Width,
    pub(super) operator: Operator,
    pub(super) value: u64,
}

/// How much of an argument is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// The lower half, where the kernel reads no more.
    Half,
    Whole,
}

/// How an argument is compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal, as far as the bits of the mask are concerned.
    MaskedEqual(u64),
}

/// What a program answers (`SECCOMP_RET_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Action(u32);

impl Action {
    pub(super) const KILL_THREAD: Self = Self(0);
    pub(super) const KILL_PROCESS: Self = Self(0x8000_0000);
    pub(super) const TRAP: Self = Self(0x0003_0000);
    pub(super) const LOG: Self = Self(0x7ffc_0000);
    pub(super) const ALLOW: Self = Self(0x7fff_0000);

    /// The call fails with this number; the kernel knows none above 4095.
    pub(super) const fn errno(number: u32) -> Self {
        let number = if number > 4095 { 4095 } else { number };
        Self(0x0005_0000 | number)
    }

    /// The kernel's number for it.
    pub(super) const fn number(self) -> u32 {
        self.0
    }

    /// A tracer is told this number.
    pub(super) const fn trace(number: u32) -> Self {
        Self(0x7ff0_0000 | number & 0xffff)
    }
}

/// The kernel's limit.
const LONGEST: usize = 4096;

/// Where the kernel's `struct seccomp_data` has the number, the architecture, and the first argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u16,
    /// How many instructions are passed over if the comparison holds, and if not.
    yes: u8,
    no: u8,
    operand: u32,
}

type Code = Vec<Instruction>;

const fn plain(code: u16, operand: u32) -> Instruction {
    Instruction {
        code,
        yes: 0,
        no: 0,
        operand,
    }
}

/// The program's bytes, as the kernel takes them.
pub(super) fn compile(profile: &Profile) -> Result<Vec<u8>, Error> {
    let mut code = vec![plain(LOAD, ARCHITECTURE)];
    for architecture in &profile.architectures {
        let mut section = vec![plain(LOAD, NUMBER)];
        let decisions = decisions(profile, *architecture);
        section.extend(search(&decisions));
        code.push(Instruction {
            code: IF_EQUAL,
            yes: 1,
            no: 0,
            operand: architecture.audit_number(),
        });
        code.push(jump_over(&section));
        code.extend(section);
    }
    code.push(plain(RETURN, Action::KILL_PROCESS.number()));
    if code.len() > LONGEST {
        return Err(Error::Seccomp {
            detail: "it is too long for the kernel".into(),
        });
    }
    Ok(bytes(&code))
}

/// What is done from each number on, up to the next. The first is 0.
fn decisions(profile: &Profile, architecture: Architecture) -> Vec<(u32, Code)> {
    let numbers = architecture.system_calls();
    let mut rules: BTreeMap<u32, Vec<&Rule>> = BTreeMap::new();
    for rule in &profile.rules {
        // Names of other architectures, or of newer kernels, mean nothing here.
        for number in rule.names.iter().filter_map(|name| numbers.get(&**name)) {
            rules.entry(*number).or_default().push(rule);
        }
    }
    let otherwise = vec![plain(RETURN, profile.otherwise.number())];
    let mut decisions = vec![(0, otherwise.clone())];
    for (number, rules) in rules {
        let decision = decide(&rules, profile.otherwise);
        for (start, code) in [(number, decision), (number + 1, otherwise.clone())] {
            match decisions.last_mut() {
                Some((last, known)) if *last == start => *known = code,
                _ => decisions.push((start, code)),
            }
        }
    }
    decisions.dedup_by(
        |later, earlier| matches!((&*later.1, &*earlier.1), ([a], [b]) if a.operand == b.operand),
    );
    decisions
}

/// What is done with one system call.
fn decide(rules: &[&Rule], otherwise: Action) -> Code {
    let mut code = Vec::new();
    for rule in rules.iter().filter(|rule| !rule.conditions.is_empty()) {
        let mut matched = vec![plain(RETURN, rule.action.number())];
        for condition in rule.conditions.iter().rev() {
            matched = check(*condition, matched);
        }
        code.extend(matched);
    }
    let unconditional = rules.iter().find(|rule| rule.conditions.is_empty());
    let action = unconditional.map_or(otherwise, |rule| rule.action);
    code.push(plain(RETURN, action.number()));
    code
}

/// One instruction of a comparison, and where its outcomes lead.
struct Step {
    code: u16,
    operand: u32,
    yes: Target,
    no: Target,
}

/// Where a step of a comparison leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Next,
    Holds,
    Fails,
}

/// Passes over `then` unless the condition holds.
fn check(condition: Condition, then: Code) -> Code {
    let (mask, value) = match condition.operator {
        Operator::MaskedEqual(mask) => (Some(mask), condition.value & mask),
        _ => (None, condition.value),
    };
    // The second three are the opposites of the first three.
    let (compare, yes, no) = match condition.operator {
        Operator::Equal | Operator::MaskedEqual(_) => (IF_EQUAL, Target::Holds, Target::Fails),
        Operator::Greater => (IF_GREATER, Target::Holds, Target::Fails),
        Operator::GreaterOrEqual => (IF_NOT_LESS, Target::Holds, Target::Fails),
        Operator::NotEqual => (IF_EQUAL, Target::Fails, Target::Holds),
        Operator::LessOrEqual => (IF_GREATER, Target::Fails, Target::Holds),
        Operator::Less => (IF_NOT_LESS, Target::Fails, Target::Holds),
    };
    let step = |code, operand, yes, no| Step {
        code,
        operand,
        yes,
        no,
    };
    let mut steps = Vec::new();
    let load = |steps: &mut Vec<Step>, half: Half| {
        let at = half.place(condition.argument);
        steps.push(step(LOAD, at, Target::Next, Target::Next));
        if let Some(mask) = mask {
            steps.push(step(AND, half.of(mask), Target::Next, Target::Next));
        }
    };
    if condition.width == Width::Whole {
        let high = Half::High.of(value);
        load(&mut steps, Half::High);
        if compare != IF_EQUAL {
            steps.push(step(IF_GREATER, high, yes, Target::Next));
        }
        steps.push(step(IF_EQUAL, high, Target::Next, no));
    }
    load(&mut steps, Half::Low);
    steps.push(step(compare, Half::Low.of(value), yes, no));
    assemble(&steps, then)
}

/// A half of an argument: instructions take 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    High,
    Low,
}

impl Half {
    fn of(self, value: u64) -> u32 {
        let bits = match self {
            Self::High => value >> 32,
            Self::Low => value & 0xffff_ffff,
        };
        u32::try_from(bits).expect("half of 64 bits")
    }

    fn place(self, argument: u8) -> u32 {
        let first = cfg!(target_endian = "big") == (self == Self::High);
        ARGUMENTS + 8 * u32::from(argument) + if first { 0 } else { 4 }
    }
}

fn assemble(steps: &[Step], then: Code) -> Code {
    let distance = |index: usize, target: Target| {
        let left = steps.len() - index - 1;
        let instructions = match target {
            Target::Next => 0,
            Target::Holds => left,
            Target::Fails => left + then.len(),
        };
        // A rule compares each of six arguments once, in at most seven steps.
        u8::try_from(instructions).expect("a rule is shorter than a jump reaches")
    };
    let compared = steps.iter().enumerate().map(|(index, step)| Instruction {
        code: step.code,
        yes: distance(index, step.yes),
        no: distance(index, step.no),
        operand: step.operand,
    });
    let mut code: Code = compared.collect();
    code.extend(then);
    code
}

/// Finds the decision for the number that is loaded.
fn search(decisions: &[(u32, Code)]) -> Code {
    let [_, _, ..] = decisions else {
        return decisions
            .first()
            .map(|(_, code)| code.clone())
            .unwrap_or_default();
    };
    let (below, above) = decisions.split_at(decisions.len() / 2);
    let Some((border, _)) = above.first() else {
        return Vec::new();
    };
    let (below, above) = (search(below), search(above));
    let branch = |yes, no| Instruction {
        code: IF_NOT_LESS,
        yes,
        no,
        operand: *border,
    };
    let mut code = match u8::try_from(below.len()) {
        Ok(distance) => vec![branch(distance, 0)],
        Err(_) => vec![branch(0, 1), jump_over(&below)],
    };
    code.extend(below);
    code.extend(above);
    code
}

fn jump_over(code: &Code) -> Instruction {
    // Nothing of more than 4096 instructions gets through.
    plain(JUMP, u32::try_from(code.len()).unwrap_or(u32::MAX))
}

fn bytes(code: &Code) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(code.len() * INSTRUCTION);
    for instruction in code {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.yes, instruction.no]);
        bytes.extend(instruction.operand.to_ne_bytes());
    }
    bytes
}
