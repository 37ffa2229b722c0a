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

/// The pod's host name: at most 63 characters.
pub(super) fn hostname(
    spec: &PodSpec,
    at: At<'_>,
    name: &str,
    scope: &Scope<'_>,
) -> Option<String> {
    let report = scope.report;
    let before = report.errors();
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
    let host_network = spec.host_network == Some(true);
    let override_at = at.field("hostnameOverride");
    if let Some(chosen) = spec.hostname_override.as_deref() {
        if host_network || spec.set_hostname_as_fqdn == Some(true) {
            let message =
                "`hostnameOverride` does not go with `hostNetwork` or `setHostnameAsFQDN`";
            report.error(override_at, message);
        }
        if let Err(error) = check_subdomain(chosen) {
            report.error(override_at, format!("`hostnameOverride` {error}"));
        } else if chosen.len() > 64 {
            report.error(
                override_at,
                "`hostnameOverride` must be no more than 64 characters",
            );
        }
    }
    if report.errors() > before {
        return None;
    }
    if host_network {
        return Some(scope.options.node_name.clone());
    }
    let own = spec
        .hostname
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or(name);
    Some(match &spec.hostname_override {
        Some(chosen) => chosen.clone(),
        None => own
            .chars()
            .take(63)
            .collect::<String>()
            .trim_end_matches(['-', '.'])
            .to_owned(),
    })
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

fn nameservers(texts: &[String], at: At<'_>, report: &Report) -> Vec<IpAddr> {
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
        address(text, "a name server", place, report)
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
            let ip = address(&alias.ip, "`ip` of a host alias", place.field("ip"), report)?;
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
