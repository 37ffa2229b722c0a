use oci_spec::runtime::LinuxSeccomp;

use super::{compile_custom, compile_default};
use crate::sys::capability::Set;
use crate::sys::seccomp::{INSTRUCTION, system_calls};

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

/// Runs a program as the kernel does, on a system call with these arguments.
fn run(program: &[u8], name: &str, arguments: &[u64]) -> u32 {
    let number = system_calls()[name];
    let mut data = Vec::new();
    data.extend(u32::try_from(number).unwrap().to_ne_bytes());
    let architecture: u32 = if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else {
        0xc000_00b7
    };
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
        let profile: LinuxSeccomp = serde_json::from_str(profile).unwrap();
        let program = compile_custom(&profile).unwrap();
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

#[test]
fn what_cannot_be_done_is_said() {
    let profile: LinuxSeccomp =
        serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#).unwrap();
    let error = compile_custom(&profile).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the seccomp profile cannot be used: it has the action SCMP_ACT_NOTIFY"
    );
}
