//! Who runs kplay: root, or the user that `KPLAY_TEST_AS` names, who has ids in /etc/subuid and /etc/subgid. And which tests
//! are skipped where, and why.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::leftovers;
use crate::wait::is_under_uml;

/// Somebody who is not root.
#[derive(Clone, Debug)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
}

/// The user that the tests are run as, if that is not root.
pub(crate) fn chosen() -> Option<User> {
    let name = std::env::var("KPLAY_TEST_AS").ok()?;
    Some(User::named(&name).unwrap_or_else(|| panic!("there is no user {name:?}")))
}

/// Tests, by why they are skipped.
type Skipped = (&'static str, &'static [&'static str]);

/// Tests that say nothing about what somebody else than root plays.
const OF_ROOT: [Skipped; 6] = [
    (
        "reaches pods' addresses from the machine, or looks at the bridge there",
        &[
            "addresses::a_pod_has_the_addresses_that_its_status_says",
            "addresses::a_pod_in_the_machines_network_is_no_stranger",
            "addresses::pods_and_the_machine_reach_each_other",
            "ports::load_balancers_are_published_ports",
            "ports::node_ports_lead_to_the_pods_that_are_ready",
        ],
    ),
    (
        "counts events, of which there are more where there is no way out",
        &[
            "events::a_life_in_events",
            "events::what_happens_again_is_counted",
        ],
    ),
    (
        "gives pods ids of their own, which only root can",
        &[
            "users::a_machine_without_what_it_takes_says_so",
            "users::a_pods_users_are_not_the_machines",
            "users::commands_at_the_same_time_give_pods_different_ids",
            "users::files_of_the_machine_keep_their_owners_numbers",
            "users::ids_are_those_that_the_machine_gives_to_pods",
            "users::ids_come_back_with_the_end_of_a_pod",
            "users::mounts_of_the_machine_come_in_with_the_pods_ids",
            "users::probes_hooks_ports_and_terminals_reach_inside",
            "users::two_states_on_a_machine_do_not_share_ids",
            "users::what_cannot_have_the_pods_ids_is_named",
        ],
    ),
    (
        "compares with the machine's ids, capabilities, devices or processes",
        &[
            "addresses::an_unprivileged_user_may_ping_and_serves_low_ports",
            "claims::a_block_device_is_in_the_container_that_claims_it",
            "claims::a_group_gets_a_claims_content_once_if_that_is_the_policy",
            "claims::persistent_volumes_are_paths_of_the_machine",
            "ports::a_taken_port_is_an_error_before_anything_starts",
            "profiles::sysctls_that_a_kubelet_refuses",
            "security::capabilities",
            "security::the_devices_that_every_container_has",
            "volumes::host_paths_and_their_types",
        ],
    ),
    (
        "takes over images of root's podman",
        &[
            "store::a_full_disk_is_named_whatever_way_an_image_comes",
            "store::a_signal_ends_a_load_and_an_import",
            "transfers::files_are_shared_with_podman_across_its_mount",
            "transfers::what_podman_has_is_played_without_a_registry",
        ],
    ),
    (
        "needs what only root may do",
        &[
            "store::a_prune_waits_for_an_apply_that_has_found_its_image",
            "volumes::an_empty_dir_of_huge_pages",
            "volumes::what_is_in_memory_is_not_swapped_out",
            "bad_input::no_root_and_no_user_namespaces",
            "host_network::a_machine_without_routes_is_told_of",
            "host_network::services_are_reached_by_name_from_the_machines_network",
            "mounts::mounts_of_a_container_are_seen_on_the_machine_if_asked",
            "names::the_policy_says_which_resolver_is_asked",
            "rootless::root_of_a_user_namespace_plays_pods_as_well",
            "system::what_is_in_the_way_is_said_by_the_doctor_and_by_apply",
            "system::who_is_not_root_is_told_of_ids",
            "terminal::a_short_name_that_several_registries_may_have_is_asked_about",
        ],
    ),
];

/// Tests that say nothing about a user to whom no cgroups are given.
const OF_CGROUPS: [Skipped; 1] = [(
    "looks for cgroups, or has limits that take them",
    &[
        "refresh::what_a_pod_was_started_with_outlives_the_objects",
        "containers::limits_are_in_the_cgroup_files",
        "containers::memory_beyond_the_limit_kills",
        "death::a_container_that_is_killed",
        "death::a_pause_that_is_killed",
        "death::an_exec_whose_caller_is_killed",
        "death::another_sandbox_runs_the_init_containers_again_and_nothing_that_is_done",
        "death::what_was_in_a_lost_sandbox_ends_as_with_its_pod",
        "death::an_executor_that_is_killed_takes_its_pod_along",
        "pods::containers_of_a_pod_share_network_ipc_and_host_name",
        "ports::the_port_outlives_a_container",
        "pull_policies::a_container_that_starts_again_gets_the_newest_image",
        "pull_policies::a_name_that_means_nothing_any_more_is_called_so",
        "pull_policies::a_pod_is_not_kept_from_its_end_by_a_pull",
        "pull_policies::an_image_that_cannot_be_had_is_waited_for",
        "pull_policies::an_image_that_was_removed_by_force_is_pulled_or_missed",
        "refresh::files_are_new_at_once_and_nothing_restarts",
        "resources::a_bound_of_processes_holds_for_all_of_a_pod",
        "resources::a_memory_limit_too_low_for_the_start_is_named",
        "resources::a_processor_is_used_as_far_as_its_limit",
        "resources::a_resize_that_needs_a_restart",
        "resources::a_resize_that_the_kernel_refuses",
        "resources::a_running_pod_is_resized",
        "resources::huge_pages_are_those_that_were_asked_for",
        "resources::huge_pages_of_the_pod_are_for_all_of_it",
        "resources::requests_limits_and_whom_the_kernel_kills_first",
        "resources::what_a_pod_has_as_a_whole",
        "security::exec_is_as_confined_as_the_container",
        "system::top_shows_what_containers_use",
        "traffic::a_killed_backend_loses_only_its_own_connections",
        "watch::objects_are_printed_whole_as_they_change",
        "watch::rows_of_pods_that_change_come_and_go",
    ],
)];

/// Tests of what the kernel or the machine of `tests/uml/boot.sh` has not.
const NOT_UNDER_UML: [Skipped; 5] = [
    (
        "needs addresses that nftables translates, which this kernel's cannot",
        &[
            "addresses::a_pod_in_the_machines_network_is_no_stranger",
            "crowd::killed_executors_are_no_endpoints_any_more",
            "crowd::nothing_listens_on_the_machine_but_what_was_published",
            "host_network::a_machine_without_routes_is_told_of",
            "host_network::services_are_reached_by_name_from_the_machines_network",
            "names::the_policy_says_which_resolver_is_asked",
            "shows::a_guestbook_of_three_tiers",
            "traffic::a_backend_that_is_stopped_loses_nothing_under_load",
            "traffic::a_client_keeps_to_its_backend",
            "traffic::a_database_is_found_by_its_services_name",
            "traffic::a_deleted_service_is_gone_at_once",
            "traffic::a_killed_backend_loses_only_its_own_connections",
            "traffic::a_pod_reaches_itself_through_its_own_service",
            "traffic::all_backends_are_used_and_a_port_is_found_by_its_name",
            "traffic::another_name_for_a_service",
            "traffic::datagrams_and_streams_come_back_through_a_service",
            "traffic::every_port_of_a_service_leads_to_its_own",
            "traffic::one_pod_of_several_services_and_a_changed_service",
            "traffic::only_ready_pods_get_traffic",
            "traffic::the_order_of_a_service_and_its_pods_does_not_matter",
            "traffic::what_is_down_or_over_is_no_endpoint",
            "traffic::without_endpoints_connections_are_refused_at_once",
            "ways_out::pods_leave_through_pasta",
            "ways_out::pods_leave_through_slirp_where_pasta_is_not_there",
        ],
    ),
    (
        "has times of a second in its manifests, in which hardly a process starts here",
        &[
            "hooks::a_failed_probe_ends_the_container_with_its_pre_stop_hook_and_grace",
            "hooks::a_pre_stop_hook_is_not_waited_for_beyond_the_grace_period",
            "hooks::pre_stop_comes_before_the_stop_signal",
            "log_files::a_flood_of_output_is_in_no_probes_way",
            "pods::a_deadline_ends_the_pod_with_grace_then_with_force",
            "pods::the_images_stop_signal",
            "probes::a_command_that_takes_too_long_is_killed",
            "probes::a_failed_liveness_probe_restarts_the_container",
            "probes::a_startup_probe_comes_before_the_others",
            "probes::apply_waits_for_readiness",
            "probes::checks_that_cannot_be_made_decide_nothing",
            "probes::readiness_is_asked_until_the_end_and_liveness_is_not",
            "system::a_service_manager_is_told_when_all_pods_are_ready",
            "users::probes_hooks_ports_and_terminals_reach_inside",
        ],
    ),
    (
        "counts events, of which there are more where there is no way out",
        &[
            "events::a_life_in_events",
            "events::what_happens_again_is_counted",
        ],
    ),
    (
        "needs tmpfs with mapped ids, which is there from Linux 6.3 on",
        &["users::every_kind_of_volume_can_be_used"],
    ),
    (
        "needs huge pages, which this kernel has not",
        &[
            "resources::huge_pages_are_those_that_were_asked_for",
            "resources::huge_pages_of_the_pod_are_for_all_of_it",
            "volumes::an_empty_dir_of_huge_pages",
        ],
    ),
];

/// Why the running test is skipped in this place, if it is.
pub(crate) fn why_skipped() -> Option<&'static str> {
    let user = chosen();
    let thread = std::thread::current();
    let name = thread.name()?;
    let tables = [
        (user.is_some(), OF_ROOT.as_slice()),
        (user.is_some_and(|user| !user.has_cgroups()), &OF_CGROUPS),
        (is_under_uml(), &NOT_UNDER_UML),
    ];
    let mut all = tables
        .into_iter()
        .filter(|(here, _)| *here)
        .flat_map(|(_, table)| table);
    all.find_map(|(why, names)| names.contains(&name).then_some(*why))
}

#[test]
fn tests_that_are_skipped_somewhere_exist() {
    let output = Command::new(std::env::current_exe().expect("a program"))
        .arg("--list")
        .output()
        .expect("it starts");
    let list = String::from_utf8_lossy(&output.stdout);
    let known: BTreeSet<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    assert!(
        known.contains("user::tests_that_are_skipped_somewhere_exist"),
        "{list}"
    );
    let tables = [OF_ROOT.as_slice(), &OF_CGROUPS, &NOT_UNDER_UML];
    let names = tables.into_iter().flatten().flat_map(|(_, names)| *names);
    let unknown: Vec<&&str> = names.filter(|name| !known.contains(*name)).collect();
    assert_eq!(unknown, [&""; 0]);
}

impl User {
    /// A user of /etc/passwd.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").expect("a file");
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let number = |text: Option<&str>| text?.parse().ok();
            (fields.next() == Some(name)).then(|| {
                Some(Self {
                    uid: number(fields.nth(1))?,
                    gid: number(fields.next())?,
                })
            })?
        })
    }

    /// Whether the user has a systemd of version 2's cgroups, which gives some to each pod.
    pub(crate) fn has_cgroups(&self) -> bool {
        let socket = format!("/run/user/{}/systemd/private", self.uid);
        leftovers::is_v2() && Path::new(&socket).exists()
    }

    /// Gives a file or folder to the user.
    pub(crate) fn give(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).expect("root may");
    }

    /// Gives what root has made in a folder to the user.
    pub(crate) fn give_all(&self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a test's folder").flatten() {
            let Ok(found) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            if found.uid() == 0 {
                std::os::unix::fs::lchown(entry.path(), Some(self.uid), Some(self.gid))
                    .expect("root may");
            }
            // What is kplay's own has been the user's from the beginning.
            let is_kplays = ["root", "run"]
                .iter()
                .any(|name| entry.file_name() == *name);
            if found.is_dir() && !is_kplays {
                self.give_all(&entry.path());
            }
        }
    }

    /// A command line's beginning that runs kplay as this user.
    pub(crate) fn program(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["setpriv".into()];
        words.push(format!("--reuid={}", self.uid).into());
        words.push(format!("--regid={}", self.gid).into());
        words.push("--clear-groups".into());
        words.push(readable_binary().as_os_str().to_owned());
        words
    }
}

/// A command line's beginning that runs kplay.
pub(crate) fn program(user: Option<&User>) -> Vec<OsString> {
    match user {
        Some(user) => user.program(),
        None => vec![env!("CARGO_BIN_EXE_kplay").into()],
    }
}

/// The binary where everybody can reach it, as root's home may be closed.
fn readable_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_kplay"));
        let is_open = |folder: &Path| {
            fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o005 == 0o005)
        };
        if built.ancestors().all(is_open) {
            return built.to_owned();
        }
        let copy = std::env::temp_dir().join(format!("kplay-of-all-{}", std::process::id()));
        fs::copy(built, &copy).expect("a copy of the binary");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("our own file");
        copy
    })
}

/// Makes a folder that only root may look into, with a file in it.
pub(crate) fn make_closed(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("secret"), "secret").expect("a file");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("our own folder");
}

/// Removes such a folder.
pub(crate) fn remove(folder: &Path) {
    fs::remove_dir_all(folder).expect("our own folder");
}
