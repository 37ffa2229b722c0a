//! The default profile: what containerd 2 and Docker allow. Anything that is not listed fails with EPERM, so that
//! programs fall back to what is; `clone3` with ENOSYS, because its flags are in memory, where no filter sees them.

use super::program::{Action, Condition, Operator, Profile, Rule, Width};
use crate::sys::capability::Set;
use crate::sys::seccomp::Architecture;

/// Allowed to everybody. Names that this architecture does not have mean nothing.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown clock_adjtime clock_getres
    clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
    epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve
    execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
    fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync
    ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid
    geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday
    getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy
    io_getevents io_pgetevents ioprio_get ioprio_set io_setup io_submit kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr
    lseek lsetxattr lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat
    mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap
    mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64
    preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr
    removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_getattr
    sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
    semtimedop sendfile sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups setitimer setpgid setpriority
    setregid setresgid setresuid setreuid setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address
    setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat
    statfs statmount statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time timer_create
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill
    truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
    arch_prctl modify_ldt uretprobe

    _llseek _newselect chown32 clock_adjtime64 clock_getres_time64 clock_gettime64 clock_nanosleep_time64 fadvise64_64
    fchown32 fcntl64 fstat64 fstatat64 fstatfs64 ftruncate64 futex_time64 getegid32 geteuid32 getgid32 getgroups32
    getresgid32 getresuid32 getuid32 io_pgetevents_time64 ipc lchown32 lstat64 mmap2 mq_timedreceive_time64
    mq_timedsend_time64 ppoll_time64 pselect6_time64 recv recvmmsg_time64 rt_sigtimedwait_time64
    sched_rr_get_interval_time64 semtimedop_time64 send sendfile64 setfsgid32 setfsuid32 setgid32 setgroups32 setregid32
    setresgid32 setresuid32 setreuid32 setuid32 sigprocmask sigreturn socketcall stat64 statfs64 timer_gettime64
    timer_settime64 timerfd_gettime64 timerfd_settime64 truncate64 ugetrlimit utimensat_time64 waitpid
";

/// Allowed to those that have the capability.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// The address family of virtual machines' sockets, which know nothing of network namespaces.
const AF_VSOCK: u64 = 40;
/// Every flag of `clone` that makes a namespace.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// The personalities that change nothing of importance: none, 32-bit addresses, UNAME26, both, and asking.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Those of the capabilities that make a difference.
pub(in crate::runtime) fn relevant(capabilities: Set) -> Set {
    let known = WITH_CAPABILITY
        .iter()
        .filter_map(|(name, _)| Set::named(name))
        .fold(Set::default(), Set::with);
    Set(capabilities.0 & known.0)
}

/// The profile for a process with these capabilities.
pub(super) fn profile(capabilities: Set) -> Profile {
    let has = |name: &str| Set::named(name).is_some_and(|one| capabilities.contains(one));
    let mut rules = vec![allow(ALLOWED, Vec::new())];
    let condition = |width, operator, value| Condition {
        argument: 0,
        width,
        operator,
        value,
    };
    // The kernel reads these two as 32 bits; what is above them must not get past the comparison.
    let socket = condition(Width::Half, Operator::NotEqual, AF_VSOCK);
    rules.push(allow("socket", vec![socket]));
    for personality in PERSONALITIES {
        let equal = condition(Width::Half, Operator::Equal, personality);
        rules.push(allow("personality", vec![equal]));
    }
    for (capability, names) in WITH_CAPABILITY {
        if has(capability) {
            rules.push(allow(names, Vec::new()));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        let none = condition(Width::Whole, Operator::MaskedEqual(NEW_NAMESPACES), 0);
        rules.push(allow("clone", vec![none]));
        rules.push(Rule {
            action: Action::errno(ENOSYS),
            ..allow("clone3", Vec::new())
        });
    }
    Profile {
        architectures: Architecture::ALL.to_vec(),
        rules,
        otherwise: Action::errno(EPERM),
    }
}

fn allow(names: &str, conditions: Vec<Condition>) -> Rule {
    Rule {
        names: names.split_ascii_whitespace().map(str::to_owned).collect(),
        conditions,
        action: Action::ALLOW,
    }
}
