//! Every path that kplay owns.
//!
//! ```text
//! ROOT (/var/lib/kplay)              survives a reboot
//!   images/                          the image store
//!   pods/KEY/record.json             what was applied; the last to be removed
//!   pods/KEY/status.json             the final v1.PodStatus, so that a reboot does not lose it
//!   pods/KEY/events.jsonl            what happened
//!   pods/KEY/volumes/NAME/           emptyDir and ConfigMap volumes on disk
//!   pods/KEY/containers/NAME-N/      upper and work folder of a container's overlay
//!   logs/NS_NAME_UID/CONTAINER/N.log
//!   container-logs/                  links to them by name
//!   objects/NS/KIND/NAME.json        ConfigMaps, Deployments, … as applied
//!   volumes/NS/NAME/                 what a PersistentVolumeClaim is bound to
//! RUNROOT (/run/kplay)               tmpfs
//!   locks/KEY                        held while a command changes the pod
//!   locks/NS_KIND_NAME               held while a command changes the object
//!   locks/services                   held while addresses and node ports of Services are chosen and written
//!   endpoints/KEY.json               what a pod's executor tells the others of the pod
//!   endpoints/services               which records of Services there are
//!   members/                         the commands of who is not root
//!   objects/NS/KIND/NAME.json        Secrets
//!   network/                         the bridge and the addresses that pods have
//!   pods/KEY/launch.json             the plan, with the content of Secrets (0600)
//!   pods/KEY/status.json             v1.PodStatus, written by the executor
//!   pods/KEY/executor.lock           locked as long as the executor lives; its pid
//!   pods/KEY/executor.log            what the executor had to say before it died
//!   pods/KEY/deleting                the pod is being deleted: since when
//!   pods/KEY/ids                     the first of the machine's ids that the pod's users have
//!   pods/KEY/cgroup                  the folder in which the pod's cgroups are, where that is not the root of the machine's
//!   pods/KEY/control.sock
//!   pods/KEY/mnt/                    mount points, seen only in the executor's mount namespace
//!   pods/KEY/oci/                    libcontainer's state and bundles
//! /run/kplay, whatever RUNROOT is    what there is once on a machine
//!   ids                              who has which of the machine's ids
//!   ids.lock                         held while a command takes ids for a pod
//! ```
//!
//! Who is not root has them in `$XDG_DATA_HOME/kplay` and `$XDG_RUNTIME_DIR/kplay` ([`Layout::of_user`]).
//!
//! KEY is `NAMESPACE_NAME`; neither has a `_`. Where that would be too long for a file name, its end is a digest.
//! KIND is `configmap`, `deployment.apps`. In KIND and NAME everything but letters, digits, `-`, `.` and `:` is `%XX`.

use std::path::{Path, PathBuf};

use crate::model::names::{Namespace, ObjectKey, PodKey, PodName};
use crate::sys::userns;

/// The two folders that hold everything.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    runroot: PathBuf,
    /// What all RUNROOTs share.
    machine: PathBuf,
}

const MACHINE: &str = "/run/kplay";
const LOCKS: &str = "locks";

impl Layout {
    /// A layout in these two folders, both absolute.
    #[must_use]
    pub fn new(root: PathBuf, runroot: PathBuf) -> Self {
        let machine = match userns::is_initial() {
            true => MACHINE.into(),
            // Who is not root has ids of nobody else's.
            false => runroot.clone(),
        };
        Self {
            root,
            runroot,
            machine,
        }
    }

    /// A layout on a machine of its own.
    #[cfg(test)]
    #[must_use]
    pub(super) fn on_machine(self, machine: PathBuf) -> Self {
        Self { machine, ..self }
    }

    /// Where root has everything.
    #[must_use]
    pub fn of_root() -> Self {
        Self::new("/var/lib/kplay".into(), "/run/kplay".into())
    }

    /// Where somebody else has everything, by the environment as the XDG Base Directory Specification reads it. Where it
    /// says nothing of a folder that does not survive a reboot, `exists` is asked for those that a login makes.
    ///
    /// None if nothing says where the user's own files are.
    #[must_use]
    pub fn of_user(
        uid: u32,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
        exists: impl Fn(&Path) -> bool,
    ) -> Option<Self> {
        // A relative one is to be ignored.
        let path = |name: &str| {
            let path = variable(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let data = path("XDG_DATA_HOME").or_else(|| Some(path("HOME")?.join(".local/share")))?;
        let of_login = PathBuf::from(format!("/run/user/{uid}"));
        let run = match path("XDG_RUNTIME_DIR") {
            Some(run) => run.join("kplay"),
            None if exists(&of_login) => of_login.join("kplay"),
            None => PathBuf::from(format!("/tmp/kplay-{uid}")),
        };
        Some(Self::new(data.join("kplay"), run))
    }

    /// The commands of who is not root that are at work, by their numbers.
    #[must_use]
    pub fn members(&self) -> PathBuf {
        self.runroot.join("members")
    }

    /// The folder that survives a reboot.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that does not.
    #[must_use]
    pub fn runroot(&self) -> &Path {
        &self.runroot
    }

    /// The image store.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// All folders that kplay makes in the two. `seccomp` is somebody else's.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let lasting = "images pods logs container-logs objects volumes".split(' ');
        let running = "pods endpoints objects network locks members".split(' ');
        let lasting = lasting.map(|name| self.root.join(name));
        let running = running.map(|name| self.runroot.join(name));
        lasting.chain(running).collect()
    }

    /// A pod's paths.
    #[must_use]
    pub fn pod(&self, key: &PodKey) -> PodPaths {
        let name = file_name(key);
        PodPaths {
            data: self.pods_data().join(&name),
            run: self.pods_run().join(&name),
        }
    }

    /// The folder of all pods' folders under ROOT.
    #[must_use]
    pub fn pods_data(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// The folder of all pods' folders under RUNROOT.
    #[must_use]
    pub fn pods_run(&self) -> PathBuf {
        self.runroot.join("pods")
    }

    /// The folder of a pod's log folders; another one for each pod of the same name.
    #[must_use]
    pub fn pod_logs(&self, key: &PodKey, uid: &str) -> PathBuf {
        self.logs()
            .join(shortened(format!("{}_{}_{uid}", key.namespace, key.name)))
    }

    /// The folder of all pods' log folders.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The folder of the links to containers' logs ([`super::logs::links`]).
    #[must_use]
    pub fn container_logs(&self) -> PathBuf {
        self.root.join("container-logs")
    }

    /// The folder of the folders that claims are bound to, by namespace.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The folder that a claim is bound to.
    #[must_use]
    pub fn volume(&self, namespace: &Namespace, claim: &str) -> PathBuf {
        self.volumes()
            .join(namespace.as_str())
            .join(shortened(escaped(claim)))
    }

    /// The folder of the machine's seccomp profiles that `Localhost` may name.
    #[must_use]
    pub fn seccomp_profiles(&self) -> PathBuf {
        self.root.join("seccomp")
    }

    /// The network that the pods join: its bridge and their addresses.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        self.runroot.join("network")
    }

    /// The folder of all locks.
    #[must_use]
    pub fn locks(&self) -> PathBuf {
        self.runroot.join(LOCKS)
    }

    /// The lock of whoever chooses addresses and node ports of Services.
    #[must_use]
    pub fn services_lock(&self) -> PathBuf {
        // Names of pods' and objects' locks have a `_`.
        self.locks().join("services")
    }

    /// What pods know of each other ([`super::endpoints`]).
    #[must_use]
    pub fn endpoints(&self) -> PathBuf {
        self.runroot.join("endpoints")
    }

    /// The lock of whoever changes a pod.
    #[must_use]
    pub fn pod_lock(&self, key: &PodKey) -> PathBuf {
        self.locks().join(file_name(key))
    }

    /// The folder of what all states on the machine share.
    #[must_use]
    pub(super) fn machine(&self) -> &Path {
        &self.machine
    }

    /// Which pods of the machine have ids ([`super::ids`]).
    #[must_use]
    pub(super) fn ids(&self) -> PathBuf {
        self.machine.join("ids")
    }

    /// The lock of whoever takes ids for a pod.
    #[must_use]
    pub(super) fn ids_lock(&self) -> PathBuf {
        self.machine.join("ids.lock")
    }

    /// The lock of whoever changes an object's record.
    #[must_use]
    pub fn object_lock(&self, key: &ObjectKey) -> PathBuf {
        let name = format!("{}_{}_{}", key.namespace, kind(key), escaped(&key.name));
        self.locks().join(shortened(name))
    }

    /// The lock of the object with this record in the folders of its namespace and kind. None if the file's name is a
    /// shortened one, which does not say whose it is.
    pub(super) fn lock_of_record(&self, [namespace, kind, file]: [&str; 3]) -> Option<PathBuf> {
        // What is not shortened has no `_`.
        let name = file.strip_suffix(".json")?;
        let lock = || shortened(format!("{namespace}_{kind}_{name}"));
        (!name.contains('_')).then(|| self.locks().join(lock()))
    }

    /// An object's record. Those of Secrets do not survive a reboot.
    #[must_use]
    pub fn object(&self, key: &ObjectKey) -> PathBuf {
        let name = shortened(escaped(&key.name));
        let folder = if key.kind == "Secret" {
            &self.runroot
        } else {
            &self.root
        };
        folder
            .join("objects")
            .join(key.namespace.as_str())
            .join(kind(key))
            .join(format!("{name}.json"))
    }

    /// The folders of all objects' records.
    #[must_use]
    pub fn objects(&self) -> [PathBuf; 2] {
        [self.root.join("objects"), self.runroot.join("objects")]
    }
}

/// The lock of whoever changes the pod with this run folder, in whatever RUNROOT that is.
pub(super) fn lock_of_run(run: &Path) -> Option<PathBuf> {
    let runroot = run.parent()?.parent()?;
    Some(runroot.join(LOCKS).join(run.file_name()?))
}

/// A pod's two folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPaths {
    data: PathBuf,
    run: PathBuf,
}

impl PodPaths {
    /// A pod that is in these two folders, as an executor knows them.
    #[must_use]
    pub fn at(data: PathBuf, run: PathBuf) -> Self {
        Self { data, run }
    }

    /// Those of another pod.
    #[must_use]
    pub fn of_neighbour(&self, key: &PodKey) -> Self {
        let name = file_name(key);
        Self {
            data: self.data.with_file_name(&name),
            run: self.run.with_file_name(&name),
        }
    }

    /// The pod's folder under ROOT.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The pod's folder under RUNROOT.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Volumes on disk.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// The pod's own `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.
    #[must_use]
    pub fn etc(&self) -> PathBuf {
        self.data.join("etc")
    }

    /// What one run of a container writes.
    #[must_use]
    pub fn container(&self, run: &str) -> PathBuf {
        self.data.join("containers").join(run)
    }

    /// The folder of mount points that only the executor's mount namespace sees.
    #[must_use]
    pub fn mounts(&self) -> PathBuf {
        self.run.join("mnt")
    }

    /// Where one run of a container has its root file system.
    #[must_use]
    pub fn rootfs(&self, run: &str) -> PathBuf {
        self.mounts().join("rootfs").join(run)
    }

    /// Where the parts of volumes (`subPath`) are mounted for one run of a container.
    #[must_use]
    pub fn sub_paths(&self, run: &str) -> PathBuf {
        self.mounts().join("sub-paths").join(run)
    }

    /// The container runtime's state.
    #[must_use]
    pub fn oci_state(&self) -> PathBuf {
        self.run.join("oci")
    }

    /// A container's bundle.
    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.run.join("bundles").join(id)
    }

    /// What was applied.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.data.join("record.json")
    }

    /// The status of a pod that has ended.
    #[must_use]
    pub fn final_status(&self) -> PathBuf {
        self.data.join("status.json")
    }

    /// The status that the executor keeps.
    #[must_use]
    pub fn status(&self) -> PathBuf {
        self.run.join("status.json")
    }

    /// What happened, one JSON value per line ([`super::events`]). As its logs, it outlives the machine's restart.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.data.join("events.jsonl")
    }

    /// What the executor was started with.
    #[must_use]
    pub fn launch(&self) -> PathBuf {
        self.run.join("launch.json")
    }

    /// Locked as long as the executor lives.
    #[must_use]
    pub fn executor_lock(&self) -> PathBuf {
        self.run.join("executor.lock")
    }

    /// The executor's standard error.
    #[must_use]
    pub fn executor_log(&self) -> PathBuf {
        self.run.join("executor.log")
    }

    /// Where the executor listens.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// The ids that the pod's user namespace has on the machine ([`super::ids`]).
    #[must_use]
    pub fn ids(&self) -> PathBuf {
        self.run.join("ids")
    }

    /// The folder in which the pod's cgroups are, if that is not the root of the machine's.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        self.run.join("cgroup")
    }

    /// There from the moment at which somebody began to delete the pod.
    #[must_use]
    pub fn deleting(&self) -> PathBuf {
        self.run.join("deleting")
    }

    /// There when what a dead executor left behind has been cleaned up.
    #[must_use]
    pub fn swept(&self) -> PathBuf {
        self.run.join("swept")
    }
}

/// Longest file name that leaves room for a suffix.
const LONGEST: usize = 200;

pub(super) fn file_name(key: &PodKey) -> String {
    shortened(format!("{}_{}", key.namespace, key.name))
}

/// The key of which `name` is the file name, unless a part of that was replaced by a digest.
pub(super) fn key_of(name: &str) -> Option<PodKey> {
    let (namespace, rest) = name.split_once('_')?;
    Some(PodKey {
        namespace: Namespace::parse(namespace).ok()?,
        name: PodName::parse(rest).ok()?,
    })
}

fn kind(key: &ObjectKey) -> String {
    let kind = key.kind.to_ascii_lowercase();
    if key.group.is_empty() {
        escaped(&kind)
    } else {
        escaped(&format!("{kind}.{}", key.group))
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'.' if index == 0 => escaped.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b':' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// `name`, which is ASCII, made fit for a file name.
fn shortened(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    // FNV-1a: only has to tell apart names that share their first 180 characters.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}_{hash:016x}", name.get(..180).unwrap_or(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> PodKey {
        PodKey {
            namespace: Namespace::parse(namespace).unwrap(),
            name: PodName::parse(name).unwrap(),
        }
    }

    #[test]
    fn a_pods_file_name_leads_back_to_its_key() {
        let check = |key: PodKey| assert_eq!(key_of(&file_name(&key)), Some(key));
        check(key("default", "web-0"));
        check(key("a", "b.c"));
        // A digest's `_` is in no name.
        let label = "a".repeat(63);
        let long = [label.as_str(); 3].join(".");
        let name = file_name(&key(&label, &long));
        assert!(name.len() <= LONGEST, "{name}");
        assert_eq!(key_of(&name), None);
        assert_ne!(name, file_name(&key(&label, &format!("{long}.x"))));
    }

    #[test]
    fn a_pods_lock_is_found_from_its_run_folder() {
        let layout = Layout::new("/r".into(), "/s".into());
        let key = key("default", "web-0");
        let lock = lock_of_run(layout.pod(&key).run());
        assert_eq!(lock, Some(layout.pod_lock(&key)));
    }

    #[test]
    fn a_users_folders_are_where_xdg_says() {
        let check = |set: &[(&str, &str)], has_login: bool, expected: Option<(&str, &str)>| {
            let variable = |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.into())
            };
            let layout = Layout::of_user(7, variable, |path| {
                has_login && path == Path::new("/run/user/7")
            });
            let found = layout.map(|layout| (layout.root, layout.runroot));
            let expected = expected.map(|(root, run)| (root.into(), run.into()));
            assert_eq!(found, expected, "{set:?}");
        };
        check(&[], true, None);
        let home = ("HOME", "/h");
        let data = "/h/.local/share/kplay";
        check(&[home], true, Some((data, "/run/user/7/kplay")));
        check(&[home], false, Some((data, "/tmp/kplay-7")));
        let xdg = [home, ("XDG_DATA_HOME", "/d"), ("XDG_RUNTIME_DIR", "/r")];
        check(&xdg, true, Some(("/d/kplay", "/r/kplay")));
        let relative = [home, ("XDG_DATA_HOME", "d"), ("XDG_RUNTIME_DIR", "")];
        check(&relative, false, Some((data, "/tmp/kplay-7")));
    }

    #[test]
    fn no_object_leaves_its_folder() {
        let layout = Layout::new("/r".into(), "/s".into());
        let check = |kind: &str, group: &str, name: &str, expected: &str| {
            let key = ObjectKey {
                kind: kind.into(),
                group: group.into(),
                namespace: Namespace::default(),
                name: name.into(),
            };
            assert_eq!(layout.object(&key), Path::new(expected));
        };
        check("ConfigMap", "", "a", "/r/objects/default/configmap/a.json");
        check("Secret", "", "a", "/s/objects/default/secret/a.json");
        check(
            "Deployment",
            "apps",
            "a.b",
            "/r/objects/default/deployment.apps/a.b.json",
        );
        check(
            "Role",
            "../x",
            "../system:y",
            "/r/objects/default/role...%2Fx/%2E.%2Fsystem:y.json",
        );
        check("..", "", "é", "/r/objects/default/%2E./%C3%A9.json");
    }
}
