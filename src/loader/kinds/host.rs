//! What a pod says about names and addresses: its host name, DNS, aliases.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodSpec;

use super::super::node::At;
use super::super::report::Report;
use super::pod::{Scope, choice};
use crate::model::names::{check_label, check_subdomain};
use crate::model::plan::{Dns, DnsPolicy, HostAlias};

/// What a resolver takes.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

/// Characters of all search domains with the spaces between them.
const MAX_SEARCH_LIST: usize = 2048;

/// The domain of a cluster's names; a kubelet's `--cluster-domain` has this default everywhere.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// What a DNS label has at most.
const MAX_LABEL: usize = 63;
/// What the kernel keeps of a host name.
const MAX_KERNEL: usize = 64;

/// How a pod is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) hostname: String,
    pub(super) domain: Option<String>,
    pub(super) as_fqdn: bool,
}

/// The pod's names (`kubelet_pods.go:GeneratePodHostNameAndDomain`, `util.GetNodenameForKernel`). A name that the kernel
/// has no place for keeps a kubelet's pod from starting for ever; here it is a fault of the manifest.
pub(super) fn names(spec: &PodSpec, at: At<'_>, name: &str, scope: &Scope<'_>) -> Option<Names> {
    let report = scope.report;
    let before = report.errors();
    check_names(spec, at, report);
    if report.errors() > before {
        return None;
    }
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let chosen = given(&spec.hostname_override);
    let has_override = chosen.is_some();
    let own = chosen.or_else(|| given(&spec.hostname));
    let own = own.unwrap_or_else(|| name.to_owned());
    if spec.host_network == Some(true) {
        return Some(Names {
            hostname: scope.options.node_name.clone(),
            domain: None,
            as_fqdn: false,
        });
    }
    let subdomain = given(&spec.subdomain).filter(|_| !has_override);
    let namespace = &scope.key.namespace;
    let names = Names {
        hostname: shortened(&own),
        domain: subdomain.map(|subdomain| format!("{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}")),
        as_fqdn: spec.set_hostname_as_fqdn == Some(true),
    };
    if let (Some(domain), true) = (&names.domain, names.as_fqdn) {
        let fqdn = format!("{}.{domain}", names.hostname);
        if fqdn.len() > MAX_KERNEL {
            let message = format!(
                "with `setHostnameAsFQDN` the host name may have {MAX_KERNEL} characters; `{fqdn}` has {}",
                fqdn.len()
            );
            let hint = "choose a shorter `hostname`, `subdomain` or namespace";
            report.error_hint(at.key("setHostnameAsFQDN"), message, hint);
            return None;
        }
    }
    Some(names)
}

/// Cut to the length of a DNS label; a cut name does not end with a separator.
fn shortened(name: &str) -> String {
    match name.get(..MAX_LABEL) {
        Some(start) if name.len() > MAX_LABEL => start.trim_end_matches(['-', '.']).to_owned(),
        _ => name.to_owned(),
    }
}

fn check_names(spec: &PodSpec, at: At<'_>, report: &Report) {
    for (field, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        let value = value.as_deref().unwrap_or_default();
        // A StatefulSet's were made from names that are checked elsewhere.
        if let (true, Err(error)) = (
            at.field(field).exists() && !value.is_empty(),
            check_label(value),
        ) {
            report.error(at.field(field), format!("`{field}` {error}"));
        }
    }
    let Some(chosen) = spec.hostname_override.as_deref() else {
        return;
    };
    let place = at.field("hostnameOverride");
    let excluded = [
        ("hostNetwork", spec.host_network),
        ("setHostnameAsFQDN", spec.set_hostname_as_fqdn),
    ];
    for (field, value) in excluded {
        if value == Some(true) {
            let message = format!("`hostnameOverride` and `{field}: true` exclude each other");
            report.error(place, message);
        }
    }
    if let Err(error) = check_subdomain(chosen) {
        report.error(place, format!("`hostnameOverride` {error}"));
    } else if chosen.len() > MAX_KERNEL {
        let message = format!("`hostnameOverride` must be no more than {MAX_KERNEL} characters");
        report.error(place, message);
    }
}

/// `dnsPolicy` and `dnsConfig`.
pub(super) fn dns(spec: &PodSpec, at: At<'_>, report: &Report) -> Option<Dns> {
    let policies = [
        ("ClusterFirst", DnsPolicy::ClusterFirst),
        (
            "ClusterFirstWithHostNet",
            DnsPolicy::ClusterFirstWithHostNet,
        ),
        ("Default", DnsPolicy::Default),
        ("None", DnsPolicy::None),
    ];
    let policy = spec.dns_policy.as_deref().unwrap_or_default();
    let policy = choice(
        policy,
        &policies,
        "dnsPolicy",
        at.field("dnsPolicy"),
        report,
    )?;
    let config = spec.dns_config.clone().unwrap_or_default();
    let config_at = at.key("dnsConfig");
    let addresses = config.nameservers.unwrap_or_default();
    if policy == DnsPolicy::None && addresses.is_empty() {
        let message = "`dnsPolicy: None` needs at least one of `dnsConfig.nameservers`";
        report.error(at.field("dnsPolicy"), message);
    }
    let nameservers = nameservers(&addresses, config_at, report);
    let searches = config.searches.unwrap_or_default();
    check_searches(&searches, config_at, report);
    let mut options = Vec::new();
    for (index, option) in config.options.unwrap_or_default().into_iter().enumerate() {
        match option.name.filter(|name| !name.is_empty()) {
            Some(name) => options.push((name, option.value)),
            None => report.error(
                config_at.field("options").index(index),
                "a DNS option must have a `name`",
            ),
        }
    }
    Some(Dns {
        policy,
        nameservers,
        searches,
        options,
    })
}

fn nameservers(texts: &[String], at: At<'_>, report: &Report) -> Vec<String> {
    if texts.len() > MAX_NAMESERVERS {
        let message = format!(
            "there may be {MAX_NAMESERVERS} name servers, these are {}",
            texts.len()
        );
        report.error(at.key("nameservers"), message);
    }
    let texts = texts.iter().enumerate();
    let parsed = texts.filter_map(|(index, text)| {
        let place = at.field("nameservers").index(index);
        address(text, "a name server", place, report).map(|_| text.clone())
    });
    parsed.collect()
}

fn check_searches(searches: &[String], at: At<'_>, report: &Report) {
    if searches.len() > MAX_SEARCHES {
        let message = format!(
            "there may be {MAX_SEARCHES} search domains, these are {}",
            searches.len()
        );
        report.error(at.key("searches"), message);
    }
    let length = searches.join(" ").len();
    if length > MAX_SEARCH_LIST {
        let message = format!(
            "all search domains may have {MAX_SEARCH_LIST} characters together, these have {length}"
        );
        report.error(at.key("searches"), message);
    }
    for (index, search) in searches.iter().enumerate() {
        // Underscores are allowed here, as they are in DNS itself.
        let bare = search.strip_suffix('.').unwrap_or(search).replace('_', "a");
        if search != "." && check_subdomain(&bare).is_err() {
            let place = at.field("searches").index(index);
            report.error(place, format!("`{search}` is not a domain name"));
        }
    }
}

/// `hostAliases`.
pub(super) fn aliases(spec: &PodSpec, at: At<'_>, report: &Report) -> Vec<HostAlias> {
    let aliases = spec.host_aliases.iter().flatten().enumerate();
    aliases
        .filter_map(|(index, alias)| {
            let place = at.index(index);
            let hostnames = alias.hostnames.clone().unwrap_or_default();
            for (index, name) in hostnames.iter().enumerate() {
                if let Err(error) = check_subdomain(name) {
                    report.error(
                        place.field("hostnames").index(index),
                        format!("the host name `{name}` {error}"),
                    );
                }
            }
            address(&alias.ip, "`ip` of a host alias", place.field("ip"), report)?;
            let ip = alias.ip.clone();
            Some(HostAlias { ip, hostnames })
        })
        .collect()
}

/// An IP address, or a fault.
pub(super) fn address(text: &str, what: &str, at: At<'_>, report: &Report) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        report.error(at, format!("{what} must be an IP address, is `{text}`"));
    }
    parsed
}
