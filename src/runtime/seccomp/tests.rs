use proptest::prelude::*;

use super::program::{self, Action, Condition, Operator, Profile, Rule, Width};
use super::{ProfileFile, compile_custom, compile_default};
use crate::sys::capability::Set;
use crate::sys::seccomp::{Architecture, INSTRUCTION};

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

const KILL: u32 = 0x8000_0000;

/// Runs a program as the kernel does, on a system call with these arguments.
fn run(program: &[u8], name: &str, arguments: &[u64]) -> u32 {
    run_on(Architecture::NATIVE, program, name, arguments)
}

fn run_on(architecture: Architecture, program: &[u8], name: &str, arguments: &[u64]) -> u32 {
    let number = architecture.system_calls()[name];
    execute(program, architecture.audit_number(), number, arguments)
}

fn execute(program: &[u8], architecture: u32, number: u32, arguments: &[u64]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(architecture.to_ne_bytes());
    data.extend([0; 8]);
    for index in 0..6 {
        data.extend(arguments.get(index).copied().unwrap_or(0).to_ne_bytes());
    }
    let word = |at: u32| {
        let at = at as usize;
        u32::from_ne_bytes(data[at..at + 4].try_into().unwrap())
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let instruction = &program[at * INSTRUCTION..(at + 1) * INSTRUCTION];
        let code = u16::from_ne_bytes([instruction[0], instruction[1]]);
        let (yes, no) = (usize::from(instruction[2]), usize::from(instruction[3]));
        let k = u32::from_ne_bytes(instruction[4..].try_into().unwrap());
        at += 1;
        let jump = |condition: bool| if condition { yes } else { no };
        match code {
            0x20 => accumulator = word(k),
            0x06 => return k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x54 => accumulator &= k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

#[test]
fn default_profile() {
    let program = compile_default(Set::default()).unwrap();
    let check = |name: &str, arguments: &[u64], expected: u32| {
        assert_eq!(
            run(&program, name, arguments),
            expected,
            "{name} {arguments:x?}"
        );
    };
    check("read", &[], ALLOW);
    check("execve", &[], ALLOW);
    check("mount", &[], EPERM);
    check("unshare", &[], EPERM);
    check("io_uring_setup", &[], EPERM);
    check("keyctl", &[], EPERM);
    check("bpf", &[], EPERM);
    check("clone3", &[], ENOSYS);
    check("clone", &[0x11], ALLOW);
    check("clone", &[0x1000_0011], EPERM);
    check("clone", &[0x0002_0000], EPERM);
    check("socket", &[2, 1, 0], ALLOW);
    check("socket", &[40, 1, 0], EPERM);
    check("socket", &[1 << 32 | 40, 1, 0], EPERM);
    check("personality", &[0], ALLOW);
    check("personality", &[0xffff_ffff], ALLOW);
    check("personality", &[0x0004_0000], EPERM);
}

#[test]
fn capabilities_allow_more() {
    let check = |capability: &str, name: &str, expected: u32| {
        let program = compile_default(Set::named(capability).unwrap()).unwrap();
        assert_eq!(
            run(&program, name, &[0x1000_0000]),
            expected,
            "{capability} {name}"
        );
    };
    check("CAP_SYS_ADMIN", "mount", ALLOW);
    check("CAP_SYS_ADMIN", "clone", ALLOW);
    check("CAP_SYS_ADMIN", "clone3", ALLOW);
    check("CAP_SYS_CHROOT", "chroot", ALLOW);
    check("CAP_SYS_CHROOT", "mount", EPERM);
    check("CAP_SYSLOG", "syslog", ALLOW);
    check("CAP_BPF", "bpf", ALLOW);
}

#[test]
fn custom_profiles() {
    let check = |profile: &str, name: &str, arguments: &[u64], expected: u32| {
        let program = custom(profile, Set::default());
        assert_eq!(
            run(&program, name, arguments),
            expected,
            "{name} {arguments:x?}"
        );
    };
    let deny = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        {"names": ["mkdir", "mkdirat", "nonsense"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30},
        {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS", "args": [
            {"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]}]}"#;
    check(deny, "read", &[], ALLOW);
    check(deny, "mkdirat", &[], ERRNO | 30);
    check(deny, "kill", &[1, 15], ALLOW);
    check(deny, "kill", &[1, 9], 0x8000_0000);
    let allow = r#"{"defaultAction": "SCMP_ACT_LOG", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 2, "value": 240, "valueTwo": 16, "op": "SCMP_CMP_MASKED_EQ"},
            {"index": 0, "value": 3, "op": "SCMP_CMP_LE"}]},
        {"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}]}"#;
    check(allow, "read", &[3, 0, 0x1f], ALLOW);
    check(allow, "read", &[4, 0, 0x1f], 0x7ffc_0000);
    check(allow, "read", &[3, 0, 0x2f], 0x7ffc_0000);
    check(allow, "write", &[2], ALLOW);
    check(allow, "write", &[3], 0x7ffc_0000);
}

fn custom(profile: &str, capabilities: Set) -> Vec<u8> {
    let profile = ProfileFile::parse(profile.as_bytes()).unwrap();
    compile_custom(&profile, capabilities).unwrap()
}

#[test]
fn what_docker_adds_to_profiles() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
        {"name": "read", "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["umount2"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["write"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4000.0"}},
        {"names": ["close"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
        {"names": ["openat"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "arm64"]}}]}"#;
    let check = |capabilities: Set, name: &str, expected: u32| {
        let program = custom(profile, capabilities);
        assert_eq!(
            run(&program, name, &[]),
            expected,
            "{capabilities:?} {name}"
        );
    };
    let (none, admin) = (Set::default(), Set::named("CAP_SYS_ADMIN").unwrap());
    check(none, "read", ALLOW);
    check(none, "mount", ENOSYS);
    check(admin, "mount", ALLOW);
    check(none, "umount2", ALLOW);
    check(admin, "umount2", ENOSYS);
    check(none, "ptrace", ALLOW);
    check(none, "write", ENOSYS);
    check(none, "close", ENOSYS);
    check(none, "openat", ALLOW);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bits() {
    let check = |program: &[u8], name: &str, expected: u32| {
        assert_eq!(
            run_on(Architecture::X86, program, name, &[]),
            expected,
            "{name}"
        );
    };
    let default = compile_default(Set::default()).unwrap();
    check(&default, "read", ALLOW);
    check(&default, "socketcall", ALLOW);
    check(&default, "mmap2", ALLOW);
    check(&default, "mount", EPERM);
    check(&default, "umount", EPERM);
    let deny = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_TRAP"}]"#;
    // Only the machine's own architecture, unless more are named.
    check(&custom(&format!("{deny}}}"), Set::default()), "read", KILL);
    let both = format!(
        r#"{deny}, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}}"#
    );
    check(&custom(&both, Set::default()), "read", ALLOW);
    check(&custom(&both, Set::default()), "mkdir", 0x0003_0000);
    let mapped = format!(
        r#"{deny}, "archMap": [{{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}}]}}"#
    );
    check(&custom(&mapped, Set::default()), "mkdir", 0x0003_0000);
    // Another architecture's, and one of the x32 calls, which have a number of their own.
    assert_eq!(execute(&default, 0xc000_00b7, 0, &[]), KILL);
    assert_eq!(execute(&default, 0xc000_003e, 0x4000_0000, &[]), EPERM);
}

#[test]
fn what_cannot_be_done_is_said() {
    let check = |profile: &str, expected: &str| {
        let file = ProfileFile::parse(profile.as_bytes());
        let error = file.and_then(|file| compile_custom(&file, Set::default()));
        assert_eq!(
            error.unwrap_err().to_string(),
            format!("the seccomp profile cannot be used: {expected}")
        );
    };
    check(
        r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
        "it has the action SCMP_ACT_NOTIFY",
    );
    check("{\n}", "missing field `defaultAction` at line 2 column 1");
    check(
        "{\n\"defaultAction\": 1}",
        "expected value at line 2 column 18",
    );
    check(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG",
            "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
        "an argument's index is above 5",
    );
}

fn operator() -> impl Strategy<Value = Operator> {
    prop_oneof![
        Just(Operator::Equal),
        Just(Operator::NotEqual),
        Just(Operator::Less),
        Just(Operator::LessOrEqual),
        Just(Operator::Greater),
        Just(Operator::GreaterOrEqual),
        value().prop_map(Operator::MaskedEqual),
    ]
}

/// Values that differ in one half, in both, or not at all.
fn value() -> impl Strategy<Value = u64> {
    let half = || prop_oneof![0_u64..3, Just(u64::from(u32::MAX))];
    (half(), half()).prop_map(|(high, low)| high << 32 | low)
}

fn condition() -> impl Strategy<Value = Condition> {
    let width = prop_oneof![Just(Width::Half), Just(Width::Whole)];
    (0_u8..6, width, operator(), value()).prop_map(|(argument, width, operator, value)| Condition {
        argument,
        width,
        operator,
        value,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let names = prop::sample::subsequence(
        vec!["read", "write", "open", "close", "mseal", "kill"],
        1..4,
    );
    let conditions = prop::collection::vec(condition(), 0..4);
    (names, conditions, 0_u32..5).prop_map(|(names, conditions, number)| Rule {
        names: names.into_iter().map(str::to_owned).collect(),
        conditions,
        action: Action::errno(number),
    })
}

fn holds(condition: &Condition, arguments: &[u64]) -> bool {
    let cut = |value: u64| match condition.width {
        Width::Half => value & 0xffff_ffff,
        Width::Whole => value,
    };
    let actual = cut(arguments[usize::from(condition.argument)]);
    let value = cut(condition.value);
    match condition.operator {
        Operator::Equal => actual == value,
        Operator::NotEqual => actual != value,
        Operator::Less => actual < value,
        Operator::LessOrEqual => actual <= value,
        Operator::Greater => actual > value,
        Operator::GreaterOrEqual => actual >= value,
        Operator::MaskedEqual(mask) => actual & cut(mask) == value & cut(mask),
    }
}

proptest! {
    #[test]
    fn a_program_does_what_its_profile_says(
        rules in prop::collection::vec(rule(), 0..8),
        arguments in prop::collection::vec(value(), 6),
        name in prop::sample::select(vec!["read", "write", "open", "close", "mseal", "kill", "fork"]),
    ) {
        let profile = Profile {
            architectures: vec![Architecture::X86_64],
            rules: rules.clone(),
            otherwise: Action::ALLOW,
        };
        let program = program::compile(&profile).unwrap();
        let of_call = || rules.iter().filter(|rule| rule.names.iter().any(|known| known == name));
        let matching = of_call().find(|rule| {
            !rule.conditions.is_empty() && rule.conditions.iter().all(|c| holds(c, &arguments))
        });
        let expected = matching.or_else(|| of_call().find(|rule| rule.conditions.is_empty()));
        let expected = expected.map_or(Action::ALLOW, |rule| rule.action);
        let answer = run_on(Architecture::X86_64, &program, name, &arguments);
        prop_assert_eq!(answer, expected.number());
    }
}
