//! What facts and trials mean for pods, and what would mend it. Touches nothing.

use super::facts::{Cgroups, Facts, Version};
use super::trials::{Outcomes, Trial};
use super::{Check, Verdict};
use crate::sys::identity;

/// The oldest kernel that has all that every pod needs: `close_range` that marks descriptors.
const OLDEST_KERNEL: (u32, u32) = (5, 11);
/// Has systemd give all controllers to the users' managers.
const DELEGATE: &str = "sh -c 'mkdir -p /etc/systemd/system/user@.service.d && printf \"[Service]\\nDelegate=yes\\n\" \
                        >/etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload'";
/// How a container of a cluster is named in [`Facts::container`].
pub(super) const KUBERNETES: &str = "kubernetes";
/// How the container of a job of GitLab's is named there.
pub(super) const GITLAB: &str = "gitlab";
/// What lets its jobs do everything.
const PRIVILEGED_RUNNER: &str = "privileged = true in [runners.docker] of the runner's config.toml";
/// Less than this is soon full.
const LITTLE_SPACE: u64 = 1 << 30;

/// All checks, in the order in which things are needed.
pub(super) fn judge(facts: &Facts, outcomes: &Outcomes) -> Vec<Check> {
    let judged = Judge { facts, outcomes };
    let mut checks = vec![judged.kernel(), judged.user()];
    checks.extend(judged.container());
    checks.push(judged.user_namespaces());
    checks.extend(judged.ids());
    checks.extend(judged.namespaces());
    checks.extend(judged.hostname());
    checks.extend(judged.proc());
    checks.extend(judged.overlay());
    checks.extend(judged.mapped_ids());
    checks.extend(judged.seccomp());
    checks.push(judged.cgroups());
    checks.extend(judged.limits());
    checks.extend(judged.bridge());
    checks.extend(judged.masquerade());
    checks.extend(judged.forwarding());
    checks.extend(judged.firewall());
    checks.extend(judged.way_out());
    checks.extend(judged.low_ports());
    checks.push(judged.space());
    checks.push(judged.mandatory_access());
    checks.extend(judged.linger());
    checks
}

struct Judge<'a> {
    facts: &'a Facts,
    outcomes: &'a Outcomes,
}

fn works(name: &'static str, detail: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Works,
        detail: detail.into(),
        remedy: None,
    }
}

fn limited(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        name,
        verdict: Verdict::Limited,
        detail: detail.into(),
        remedy: Some(remedy.into()),
    }
}

fn fails(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check {
        verdict: Verdict::Fails,
        ..limited(name, detail, remedy)
    }
}

impl Judge<'_> {
    /// How a trial went; nothing if it was not made.
    fn outcome(&self, trial: Trial) -> Option<Result<(), &str>> {
        let outcome = self.outcomes.get(&trial)?;
        Some(outcome.as_ref().copied().map_err(String::as_str))
    }

    fn is_root(&self) -> bool {
        self.facts.user.administers
    }

    /// A command that takes root, for who runs this.
    fn as_root(&self, command: &str) -> String {
        match self.facts.user.uid {
            0 => command.to_owned(),
            _ => format!("sudo {command}"),
        }
    }

    /// A command for the kernel that all share, which is not to be given from within a container.
    fn on_machine(&self, command: &str) -> String {
        match self.facts.container {
            Some(_) => format!("outside of this container: sudo {command}"),
            None => self.as_root(command),
        }
    }

    /// What is given to the container that kplay is in, when it is started.
    fn outer(&self, flag: &str) -> Option<String> {
        let program = match self.facts.container.as_deref()? {
            KUBERNETES => return Some("securityContext: {privileged: true}".to_owned()),
            GITLAB => return Some(PRIVILEGED_RUNNER.to_owned()),
            "docker" => "docker",
            _ => "podman",
        };
        Some(format!("{program} run {flag} …"))
    }

    /// What lets a container without more capabilities make user namespaces, and mount in them: what forbids it are the
    /// profiles that engines bring, which docker's do and podman's do not, and what docker hides of `/proc`.
    fn unconfined(&self) -> Option<String> {
        Some(match self.facts.container.as_deref()? {
            KUBERNETES => {
                "securityContext: {seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}".to_owned()
            }
            engine => {
                let proc = match engine {
                    "docker" => "systempaths=unconfined",
                    _ => "unmask=ALL",
                };
                self.outer(&format!(
                    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt {proc}"
                ))?
            }
        })
    }

    fn kernel(&self) -> Check {
        let release = &self.facts.kernel;
        let detail = format!("Linux {release}");
        if identity::kernel_version(release) >= OLDEST_KERNEL {
            return works("kernel", detail);
        }
        let (major, minor) = OLDEST_KERNEL;
        fails(
            "kernel",
            detail,
            format!("install Linux {major}.{minor} or newer"),
        )
    }

    fn user(&self) -> Check {
        let user = &self.facts.user;
        match (user.uid, user.administers) {
            (0, true) => works("user", "root"),
            (_, true) => works("user", format!("{}, with CAP_SYS_ADMIN", user.name)),
            (0, false) => works(
                "user",
                "root without CAP_SYS_ADMIN, so in a user namespace, as without root",
            ),
            (uid, false) => works("user", format!("{}, without root (uid {uid})", user.name)),
        }
    }

    fn container(&self) -> Option<Check> {
        let name = self.facts.container.as_ref()?;
        Some(works(
            "container",
            format!("kplay runs inside of one ({name})"),
        ))
    }

    fn user_namespaces(&self) -> Check {
        let name = "user namespaces";
        let error = match self.outcome(Trial::Users) {
            Some(Ok(())) => return works(name, "can be made"),
            Some(Err(error)) => error,
            None => "not tried",
        };
        let sysctls = &self.facts.sysctls;
        let none = sysctls.max_user_namespaces == Some(0);
        // What the kernel says then is about a disk.
        let error = match none {
            true => "the sysctl `user.max_user_namespaces` allows none",
            false => error,
        };
        let remedy = if none {
            self.on_machine("sysctl -w user.max_user_namespaces=15000")
        } else if sysctls.unprivileged_userns_clone == Some(0) && !self.is_root() {
            self.on_machine("sysctl -w kernel.unprivileged_userns_clone=1")
        } else if let Some(unconfined) = self.unconfined() {
            unconfined
        } else if sysctls.apparmor_restrict_unprivileged_userns == Some(1) && !self.is_root() {
            self.as_root("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
        } else if error.contains("not permitted") {
            "run kplay outside of a chroot, and without a filter of system calls (systemd's RestrictNamespaces=)".to_owned()
        } else {
            "boot a kernel with CONFIG_USER_NS".to_owned()
        };
        if self.is_root() {
            let detail = format!("none for pods with `hostUsers: false`: {error}");
            return limited(name, detail, remedy);
        }
        fails(name, format!("cannot be made: {error}"), remedy)
    }

    /// Who is not root has one id without them.
    fn ids(&self) -> Option<Check> {
        if self.is_root() {
            return None;
        }
        let name = "subordinate ids";
        if self.facts.user.uid == 0 && self.outcome(Trial::Ids) == Some(Ok(())) {
            return Some(works(name, "root gives those that it has"));
        }
        let given = &self.facts.subordinate;
        let user = &self.facts.user.name;
        let lost = "pods have one user and one group";
        let (Some(users), Some(groups)) = (&given.users, &given.groups) else {
            let command =
                format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}");
            let detail = format!("{lost}: /etc/subuid and /etc/subgid give none to `{user}`");
            return Some(limited(name, detail, self.as_root(&command)));
        };
        if !self.facts.newuidmap {
            let detail = format!("{lost}: there is no `newuidmap` or `newgidmap`");
            let command = "apt-get install uidmap || sudo dnf install shadow-utils";
            return Some(limited(name, detail, self.as_root(command)));
        }
        Some(match self.outcome(Trial::Ids)? {
            Ok(()) => {
                let count = users.len().min(groups.len());
                works(name, format!("{count} from {} on", users.start))
            }
            Err(error) => limited(
                name,
                format!("{lost}: {error}"),
                self.as_root("chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap"),
            ),
        })
    }

    fn namespaces(&self) -> Option<Check> {
        let name = "namespaces";
        Some(match self.outcome(Trial::Namespaces)? {
            Ok(()) => works(
                name,
                "mount, network, ipc, uts and pid namespaces can be made",
            ),
            Err(error) => {
                let sysctls = &self.facts.sysctls;
                let restricted = sysctls.apparmor_restrict_unprivileged_userns == Some(1);
                let remedy = if restricted && !self.is_root() {
                    self.on_machine("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
                } else {
                    let outer = self.unconfined();
                    outer.unwrap_or_else(|| "boot a kernel with CONFIG_NAMESPACES".to_owned())
                };
                fails(name, format!("cannot be made: {error}"), remedy)
            }
        })
    }

    fn hostname(&self) -> Option<Check> {
        let name = "hostname";
        Some(match self.outcome(Trial::Hostname)? {
            Ok(()) => works(name, "pods can have one of their own"),
            Err(error) => {
                // A filter forbids root without CAP_SYS_ADMIN the call, and its engine hides the file.
                let remedy = match self.facts.container.as_deref() {
                    Some("podman") => self.outer("--security-opt unmask=ALL"),
                    _ => self.unconfined(),
                };
                let otherwise = || "run kplay without a filter of system calls".to_owned();
                let detail = format!("pods cannot have one of their own: {error}");
                fails(name, detail, remedy.unwrap_or_else(otherwise))
            }
        })
    }

    fn proc(&self) -> Option<Check> {
        let name = "proc";
        let error = match self.outcome(Trial::Proc)? {
            Ok(()) => return Some(works(name, "pods can have a /proc of their own")),
            Err(error) => error,
        };
        // What a container engine hides of /proc, nobody may uncover by mounting another one.
        let remedy = match self.facts.container.as_deref() {
            Some("docker") => "docker run --security-opt systempaths=unconfined …",
            Some(GITLAB) => PRIVILEGED_RUNNER,
            Some(KUBERNETES) => {
                "securityContext: {procMount: Unmasked}, in a pod with hostUsers: false"
            }
            Some(_) => "podman run --security-opt unmask=ALL …",
            None => "umount what is mounted below /proc",
        };
        Some(fails(
            name,
            format!("pods can have no /proc or /sys: {error}"),
            remedy,
        ))
    }

    fn overlay(&self) -> Option<Check> {
        let name = "overlay";
        let (root, kind) = (self.facts.root.display(), &self.facts.file_system);
        Some(match self.outcome(Trial::Overlay)? {
            Ok(()) => works(name, format!("can be mounted on {root} ({kind})")),
            Err(error) => {
                let remedy = match (kind.as_str(), self.facts.container.as_deref()) {
                    // One overlay cannot be written to on top of another; what is built is on none.
                    ("overlay", Some(GITLAB)) => {
                        Some("kplay --root $CI_BUILDS_DIR/kplay …".to_owned())
                    }
                    ("overlay", Some(KUBERNETES)) => Some(format!(
                        "volumes: [{{name: kplay, emptyDir: {{}}}}], with volumeMounts: [{{name: kplay, mountPath: {root}}}]"
                    )),
                    ("overlay", _) => self.outer(&format!("-v kplay:{root}")),
                    _ if error.contains("o such device") => {
                        Some(self.on_machine("modprobe overlay"))
                    }
                    _ => None,
                };
                let elsewhere = || "kplay --root FOLDER …, on ext4, xfs, btrfs or tmpfs".to_owned();
                let detail = format!("cannot be used on {root} ({kind}): {error}");
                fails(name, detail, remedy.unwrap_or_else(elsewhere))
            }
        })
    }

    fn mapped_ids(&self) -> Option<Check> {
        let name = "idmapped mounts";
        // Without user namespaces that is said already.
        let users = self.outcome(Trial::Users)?;
        Some(match (users, self.outcome(Trial::MappedIds)?) {
            (Err(_), _) => return None,
            (_, Ok(())) => works(
                name,
                "pods can have users of their own (`hostUsers: false`)",
            ),
            (_, Err(error)) => limited(
                name,
                format!("none for pods with `hostUsers: false`: {error}"),
                "kplay --root FOLDER …, on ext4, xfs or btrfs, with Linux 5.19 or newer",
            ),
        })
    }

    fn seccomp(&self) -> Option<Check> {
        let name = "seccomp";
        Some(match self.outcome(Trial::Seccomp)? {
            Ok(()) => works(name, "system calls can be filtered"),
            Err(error) => fails(
                name,
                format!("system calls cannot be filtered: {error}"),
                "boot a kernel with CONFIG_SECCOMP_FILTER",
            ),
        })
    }

    fn cgroups(&self) -> Check {
        let name = "cgroups";
        let found = &self.facts.cgroups;
        let Some(version) = found.version else {
            let command = "mount -t cgroup2 cgroup2 /sys/fs/cgroup";
            let detail = "none are mounted";
            return match self.is_root() {
                true => fails(name, detail, command),
                false => limited(name, detail, self.as_root(command)),
            };
        };
        let version = match version {
            Version::V1 => "version 1",
            Version::V2 => "version 2",
        };
        let detail = format!("{version} with {}", found.controllers.join(", "));
        match self.outcome(Trial::Cgroup) {
            // As most containers have them.
            Some(Err(error)) if error.contains("read-only filesystem") => limited(
                name,
                format!("{version}, read-only: limits of pods are not enforced"),
                self.outer("--privileged")
                    .unwrap_or_else(|| "mount -o remount,rw /sys/fs/cgroup".to_owned()),
            ),
            Some(Err(error)) => {
                let outer = self.outer("--privileged");
                let remedy =
                    outer.unwrap_or_else(|| "mount -o remount,rw /sys/fs/cgroup".to_owned());
                fails(name, format!("{version}: {error}"), remedy)
            }
            Some(Ok(())) | None => works(name, detail),
        }
    }

    fn limits(&self) -> Option<Check> {
        let name = "limits";
        let found = &self.facts.cgroups;
        if self.is_root() {
            return Some(match self.outcome(Trial::Limits)? {
                Ok(()) => works(name, "memory, processor and processes can be limited"),
                Err(error) => {
                    let outer = self.outer("--privileged --cgroupns=host");
                    let enable = "echo '+cpu +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control";
                    limited(
                        name,
                        format!("pods with limits do not start: {error}"),
                        outer.unwrap_or_else(|| enable.to_owned()),
                    )
                }
            });
        }
        let unlimited = "limits of pods are not enforced";
        if self.facts.user.uid == 0 {
            return Some(limited(
                name,
                format!("{unlimited}: without CAP_SYS_ADMIN no cgroup is root's to divide"),
                self.outer("--privileged")
                    .unwrap_or_else(|| "run kplay with all capabilities of root".to_owned()),
            ));
        }
        let reboot = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line";
        Some(match (found.version?, &found.delegated) {
            (Version::V1, _) | (_, None) => limited(
                name,
                format!("{unlimited}: without root that takes version 2"),
                reboot,
            ),
            (Version::V2, Some(Err(error))) => limited(
                name,
                format!(
                    "{unlimited}: systemd gives no cgroup to `{}`: {error}",
                    self.facts.user.name
                ),
                self.as_root(&format!("loginctl enable-linger {}", self.facts.user.name)),
            ),
            (Version::V2, Some(Ok(delegated))) => match Cgroups::lacks(delegated)[..] {
                [] => works(name, "systemd gives the controllers cpu, memory and pids"),
                ref lacks => limited(
                    name,
                    format!(
                        "{unlimited} by {}: systemd does not give it",
                        lacks.join(", ")
                    ),
                    self.as_root(DELEGATE),
                ),
            },
        })
    }

    fn bridge(&self) -> Option<Check> {
        let name = "bridge";
        let linked = self.outcome(Trial::Link).unwrap_or(Ok(()));
        let Err(error) = self.outcome(Trial::Bridge)?.and(linked) else {
            return Some(works(name, "pods can be linked to one"));
        };
        let detail = format!("pods can only have the machine's network: {error}");
        Some(fails(
            name,
            detail,
            self.on_machine("modprobe -a bridge veth"),
        ))
    }

    fn masquerade(&self) -> Option<Check> {
        let name = "nftables";
        Some(match self.outcome(Trial::Masquerade)? {
            Ok(()) => works(name, "with NAT"),
            Err(error) => limited(
                name,
                format!(
                    "no NAT: pods reach each other and this machine only, and Services by name only ({error})"
                ),
                self.on_machine("modprobe -a nf_tables nft_chain_nat nft_masq"),
            ),
        })
    }

    fn forwarding(&self) -> Option<Check> {
        let name = "forwarding";
        self.is_root().then(|| match &self.facts.forwarding {
            Ok(()) => works(name, "packets of pods can be forwarded"),
            Err(error) => limited(
                name,
                format!("pods reach each other and this machine only: {error}"),
                "sysctl -w net.ipv4.ip_forward=1",
            ),
        })
    }

    fn firewall(&self) -> Option<Check> {
        let chain = self.facts.firewall.first()?;
        let remedy = match chain.as_str() {
            "filter FORWARD" => {
                "iptables -I FORWARD -i kplay+ -j ACCEPT && iptables -I FORWARD -o kplay+ -j ACCEPT"
                    .to_owned()
            }
            chain => format!(
                "nft 'insert rule inet {chain} iifname \"kplay*\" accept; insert rule inet {chain} oifname \"kplay*\" accept'"
            ),
        };
        let detail = format!("the chain `{chain}` of nftables drops what is forwarded");
        Some(limited("firewall", detail, remedy))
    }

    /// Root's pods need neither.
    fn way_out(&self) -> Option<Check> {
        if self.is_root() {
            return None;
        }
        let name = "way out";
        let lost = "pods reach each other and this machine only";
        let Some(program) = self.facts.way_out else {
            let command = "apt-get install passt || sudo dnf install passt";
            let detail = format!("{lost}: there is neither `pasta` nor `slirp4netns`");
            return Some(limited(name, detail, self.as_root(command)));
        };
        Some(match &self.facts.tun {
            Ok(()) => works(name, format!("{program}, by /dev/net/tun")),
            Err(error) if self.facts.container.is_some() => limited(
                name,
                format!("{lost}: {error}"),
                self.outer("--device /dev/net/tun").unwrap_or_default(),
            ),
            Err(error) => {
                let command = "sh -c 'modprobe tun && chmod 666 /dev/net/tun'";
                limited(name, format!("{lost}: {error}"), self.as_root(command))
            }
        })
    }

    fn low_ports(&self) -> Option<Check> {
        let first = self.facts.sysctls.unprivileged_port_start?;
        if self.is_root() || first <= 80 {
            return None;
        }
        let detail = format!("ports below {first} cannot be published");
        let command = self.as_root("sysctl -w net.ipv4.ip_unprivileged_port_start=80");
        Some(limited("ports", detail, command))
    }

    fn space(&self) -> Check {
        let name = "space";
        let root = self.facts.root.display();
        let Some(free) = self.facts.free_bytes else {
            return limited(name, format!("unknown on {root}"), "kplay --root FOLDER …");
        };
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let detail = format!(
            "{:.1} GiB are free on {root}",
            free as f64 / (1_u64 << 30) as f64
        );
        match free {
            0 => fails(name, detail, "kplay image rm IMAGE…"),
            _ if free < LITTLE_SPACE => limited(name, detail, "kplay image rm IMAGE…"),
            _ => works(name, detail),
        }
    }

    /// Neither stands in the way of pods: containers stay in the domain that kplay runs in.
    fn mandatory_access(&self) -> Check {
        let app_armor = match self.facts.app_armor {
            true => "AppArmor enforces profiles",
            false => "no AppArmor",
        };
        let selinux = self.facts.selinux.map_or("no SELinux".to_owned(), |mode| {
            format!("SELinux is {mode}; containers run in kplay's domain")
        });
        works("security modules", format!("{app_armor}; {selinux}"))
    }

    fn linger(&self) -> Option<Check> {
        let lingers = self.facts.linger?;
        if self.facts.user.uid == 0 {
            return None;
        }
        let name = "linger";
        let user = &self.facts.user.name;
        Some(match lingers {
            true => works(name, "pods outlive your last session"),
            false => limited(
                name,
                "pods may end with your last session",
                format!("loginctl enable-linger {user}"),
            ),
        })
    }
}

#[cfg(test)]
mod tests;
