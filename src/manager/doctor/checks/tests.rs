use std::path::PathBuf;

use super::super::facts::{Subordinate, Sysctls, User};
use super::super::is_fit;
use super::*;

/// A machine on which root's pods can do everything.
fn machine() -> Facts {
    Facts {
        kernel: "6.1.0-18-amd64".to_owned(),
        user: User {
            uid: 0,
            name: "root".to_owned(),
            administers: true,
        },
        container: None,
        root: PathBuf::from("/var/lib/kplay"),
        file_system: "ext4".to_owned(),
        free_bytes: Some(10 << 30),
        sysctls: Sysctls {
            max_user_namespaces: Some(15_000),
            unprivileged_userns_clone: Some(1),
            apparmor_restrict_unprivileged_userns: None,
            unprivileged_port_start: Some(1024),
        },
        subordinate: Subordinate::default(),
        cgroups: Cgroups {
            version: Some(Version::V2),
            controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
            delegated: None,
        },
        forwarding: Ok(()),
        firewall: Vec::new(),
        tun: Err("cannot open \"/dev/net/tun\"".to_owned()),
        way_out: None,
        newuidmap: false,
        app_armor: true,
        selinux: None,
        linger: Some(false),
    }
}

/// The same for somebody else, who has everything.
fn of_user() -> Facts {
    Facts {
        user: User {
            uid: 1000,
            name: "me".to_owned(),
            administers: false,
        },
        subordinate: Subordinate {
            users: Some(100_000..165_536),
            groups: Some(100_000..165_536),
        },
        cgroups: Cgroups {
            delegated: Some(Ok(machine().cgroups.controllers)),
            ..machine().cgroups
        },
        tun: Ok(()),
        way_out: Some("pasta"),
        newuidmap: true,
        linger: Some(true),
        sysctls: Sysctls {
            unprivileged_port_start: Some(80),
            ..machine().sysctls
        },
        ..machine()
    }
}

const ALL: [Trial; 13] = [
    Trial::Hostname,
    Trial::Cgroup,
    Trial::Limits,
    Trial::Namespaces,
    Trial::Users,
    Trial::Ids,
    Trial::Overlay,
    Trial::MappedIds,
    Trial::Bridge,
    Trial::Link,
    Trial::Masquerade,
    Trial::Seccomp,
    Trial::Proc,
];

fn well() -> Outcomes {
    ALL.into_iter().map(|trial| (trial, Ok(()))).collect()
}

/// All goes well but this.
fn but(trial: Trial, error: &str) -> Outcomes {
    let mut outcomes = well();
    outcomes.insert(trial, Err(error.to_owned()));
    outcomes
}

/// What is not in order, as `VERDICT NAME: REMEDY`.
fn faults(facts: &Facts, outcomes: &Outcomes) -> Vec<String> {
    judge(facts, outcomes)
        .into_iter()
        .filter(|check| check.verdict != Verdict::Works)
        .map(|check| {
            let verdict = check.verdict.as_str();
            format!("{verdict} {}: {}", check.name, check.remedy.unwrap())
        })
        .collect()
}

#[test]
fn a_fit_machine_has_no_faults() {
    assert_eq!(faults(&machine(), &well()), [""; 0]);
    assert_eq!(faults(&of_user(), &well()), [""; 0]);
    assert!(is_fit(&judge(&machine(), &well())));
}

#[test]
fn each_fault_has_its_remedy() {
    let check = |facts: Facts, outcomes: Outcomes, expected: &str| {
        assert_eq!(faults(&facts, &outcomes), [expected], "{facts:?}");
    };
    let old = Facts {
        kernel: "5.10.0".to_owned(),
        ..machine()
    };
    check(old, well(), "fails kernel: install Linux 5.11 or newer");
    check(
        machine(),
        but(Trial::Overlay, "cannot mount: No such device (os error 19)"),
        "fails overlay: modprobe overlay",
    );
    let nested = Facts {
        container: Some("podman".to_owned()),
        file_system: "overlay".to_owned(),
        ..machine()
    };
    check(
        nested.clone(),
        but(Trial::Overlay, "invalid"),
        "fails overlay: podman run -v kplay:/var/lib/kplay …",
    );
    // Where containers are somebody else's to start.
    let within = |container: &str| Facts {
        container: Some(container.to_owned()),
        ..nested.clone()
    };
    check(
        within("gitlab"),
        but(Trial::Overlay, "invalid"),
        "fails overlay: kplay --root $CI_BUILDS_DIR/kplay …",
    );
    check(
        within("kubernetes"),
        but(Trial::Overlay, "invalid"),
        "fails overlay: volumes: [{name: kplay, emptyDir: {}}], with volumeMounts: [{name: kplay, mountPath: /var/lib/kplay}]",
    );
    check(
        nested,
        but(Trial::Cgroup, "read-only"),
        "fails cgroups: podman run --privileged …",
    );
    let docker = Facts {
        container: Some("docker".to_owned()),
        ..machine()
    };
    check(
        docker.clone(),
        but(Trial::Proc, "not permitted"),
        "fails proc: docker run --security-opt systempaths=unconfined …",
    );
    check(
        docker,
        but(Trial::Bridge, "x"),
        "fails bridge: outside of this container: sudo modprobe -a bridge veth",
    );
    check(
        machine(),
        but(Trial::Limits, "not given"),
        "limited limits: echo '+cpu +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control",
    );
    check(
        machine(),
        but(Trial::Masquerade, "x"),
        "limited nftables: modprobe -a nf_tables nft_chain_nat nft_masq",
    );
    check(
        machine(),
        but(Trial::Link, "x"),
        "fails bridge: modprobe -a bridge veth",
    );
    let walled = Facts {
        firewall: vec!["filter FORWARD".to_owned()],
        ..machine()
    };
    check(
        walled,
        well(),
        "limited firewall: iptables -I FORWARD -i kplay+ -j ACCEPT && iptables -I FORWARD -o kplay+ -j ACCEPT",
    );
    let full = Facts {
        free_bytes: Some(0),
        ..machine()
    };
    check(full, well(), "fails space: kplay image rm IMAGE…");
}

/// As in most containers.
#[test]
fn a_root_without_rights_is_as_without_root() {
    let of = |container: &str| Facts {
        user: User {
            administers: false,
            ..machine().user
        },
        container: Some(container.to_owned()),
        ..of_user()
    };
    let check = |container: &str, trial: Trial, expected: [&str; 2]| {
        let mut outcomes = but(trial, "Operation not permitted");
        outcomes.remove(&Trial::MappedIds);
        assert_eq!(faults(&of(container), &outcomes), expected);
    };
    let limits = "limited limits: docker run --privileged …";
    check(
        "docker",
        Trial::Users,
        [
            "fails user namespaces: docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
             --security-opt systempaths=unconfined …",
            limits,
        ],
    );
    check(
        "docker",
        Trial::Proc,
        [
            "fails proc: docker run --security-opt systempaths=unconfined …",
            limits,
        ],
    );
    let limits =
        "limited limits: privileged = true in [runners.docker] of the runner's config.toml";
    for (trial, name) in [(Trial::Users, "user namespaces"), (Trial::Proc, "proc")] {
        let fault = limits.replace("limited limits", &format!("fails {name}"));
        check("gitlab", trial, [&fault, limits]);
    }
    let limits = "limited limits: securityContext: {privileged: true}";
    check(
        "kubernetes",
        Trial::Users,
        [
            "fails user namespaces: securityContext: {seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}",
            limits,
        ],
    );
    check(
        "kubernetes",
        Trial::Proc,
        [
            "fails proc: securityContext: {procMount: Unmasked}, in a pod with hostUsers: false",
            limits,
        ],
    );
}

#[test]
fn without_root_other_things_are_needed() {
    let check = |facts: Facts, outcomes: Outcomes, expected: &str| {
        assert_eq!(faults(&facts, &outcomes), [expected], "{facts:?}");
    };
    let with = |sysctls: Sysctls| Facts {
        sysctls,
        ..of_user()
    };
    let refused = || but(Trial::Users, "Operation not permitted");
    let sysctls = of_user().sysctls;
    check(
        with(Sysctls {
            max_user_namespaces: Some(0),
            ..sysctls
        }),
        refused(),
        "fails user namespaces: sudo sysctl -w user.max_user_namespaces=15000",
    );
    check(
        with(Sysctls {
            unprivileged_userns_clone: Some(0),
            ..sysctls
        }),
        refused(),
        "fails user namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1",
    );
    check(
        of_user(),
        refused(),
        "fails user namespaces: run kplay outside of a chroot, and without a filter of system calls (systemd's RestrictNamespaces=)",
    );
    check(
        of_user(),
        but(Trial::Users, "Invalid argument"),
        "fails user namespaces: boot a kernel with CONFIG_USER_NS",
    );
    // Ubuntu lets them be made, and takes all capabilities away in them.
    check(
        with(Sysctls {
            apparmor_restrict_unprivileged_userns: Some(1),
            ..sysctls
        }),
        but(Trial::Namespaces, "Operation not permitted"),
        "fails namespaces: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    );
    check(
        Facts {
            subordinate: Subordinate::default(),
            ..of_user()
        },
        well(),
        "limited subordinate ids: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 me",
    );
    check(
        Facts {
            tun: Err("permission denied".to_owned()),
            ..of_user()
        },
        well(),
        "limited way out: sudo sh -c 'modprobe tun && chmod 666 /dev/net/tun'",
    );
    check(
        Facts {
            linger: Some(false),
            ..of_user()
        },
        well(),
        "limited linger: loginctl enable-linger me",
    );
    check(
        Facts {
            cgroups: Cgroups {
                version: Some(Version::V1),
                ..of_user().cgroups
            },
            ..of_user()
        },
        well(),
        "limited limits: boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line",
    );
}

#[test]
fn what_was_not_tried_is_not_judged() {
    let refused = Outcomes::from([(Trial::Users, Err("no".to_owned()))]);
    let names: Vec<&str> = judge(&of_user(), &refused)
        .into_iter()
        .filter(|check| check.verdict == Verdict::Fails)
        .map(|check| check.name)
        .collect();
    assert_eq!(names, ["user namespaces"]);
}
