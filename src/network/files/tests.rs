use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn alias(address: &str, hostnames: &[&str]) -> HostAlias {
    HostAlias {
        ip: address.into(),
        hostnames: hostnames.iter().map(ToString::to_string).collect(),
    }
}

const HEAD: &str = "# Kubernetes-managed hosts file.\n\
    127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

#[test]
fn hosts_is_a_kubelets_byte_for_byte() {
    let check = |fqdn, pod_ips: &[IpAddr], aliases: &[HostAlias], expected: &str| {
        let input = Hosts {
            hostname: "web",
            fqdn,
            pod_ips,
            aliases,
            host_file: None,
        };
        assert_eq!(hosts(&input), format!("{HEAD}{expected}"));
    };
    check(None, &[ip("10.0.0.2")], &[], "10.0.0.2\tweb\n");
    check(
        None,
        &[ip("10.0.0.2"), ip("fd00::2")],
        &[],
        "10.0.0.2\tweb\nfd00::2\tweb\n",
    );
    check(
        Some("web.sub.ns.svc.cluster.local"),
        &[ip("10.0.0.2")],
        &[],
        "10.0.0.2\tweb.sub.ns.svc.cluster.local\tweb\n",
    );
    check(
        None,
        &[ip("10.0.0.2")],
        &[alias("1.2.3.4", &["a", "b.c"]), alias("::5", &["d"])],
        "10.0.0.2\tweb\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb.c\n::5\td\n",
    );
    check(None, &[], &[], "");
}

#[test]
fn hosts_with_host_network_is_the_machines() {
    let check = |host_file: &str, aliases: &[HostAlias], expected: &str| {
        let input = Hosts {
            hostname: "web",
            fqdn: None,
            pod_ips: &[],
            aliases,
            host_file: Some(host_file),
        };
        let header = "# Kubernetes-managed hosts file (host network).\n";
        assert_eq!(hosts(&input), format!("{header}{expected}"));
    };
    check("127.0.0.1 localhost\n", &[], "127.0.0.1 localhost\n");
    check("", &[], "");
    check(
        "a\n",
        &[alias("1.2.3.4", &["x"])],
        "a\n\n# Entries added by HostAliases.\n1.2.3.4\tx\n",
    );
}

fn dns(
    policy: DnsPolicy,
    nameservers: &[&str],
    searches: &[&str],
    options: &[(&str, Option<&str>)],
) -> Dns {
    Dns {
        policy,
        nameservers: nameservers.iter().map(ToString::to_string).collect(),
        searches: searches.iter().map(ToString::to_string).collect(),
        options: options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
            .collect(),
    }
}

/// The file alone, of a pod in the machine's network.
fn text(dns: &Dns, of_host: &str) -> String {
    resolv_conf(dns, PodNetwork::Machine(None), of_host).text
}

#[test]
fn what_does_not_fit_is_told() {
    let told = |nameservers: &[&str], searches: &[&str]| {
        let dns = dns(DnsPolicy::None, nameservers, searches, &[]);
        resolv_conf(&dns, PodNetwork::Machine(None), "").omissions
    };
    assert_eq!(told(&["1.1.1.1", "1.1.1.1"], &["a", "a"]), [""; 0]);
    let long = "x".repeat(254);
    assert_eq!(
        told(
            &["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"],
            &["a", &long, "b"]
        ),
        [
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: a b",
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
             1.1.1.1 1.1.1.2 1.1.1.3",
        ]
    );
}

#[test]
fn the_policy_chooses_the_base_and_the_pod_adds() {
    let host = "# comment\n; other\nnameserver 1.1.1.1\nnameserver\n\tnameserver   1.0.0.1  extra\nsearch old.example\n\
        search a.example. b.example .\noptions ndots:2 rotate\noptions timeout:1 ndots:3\nsortlist x\ndomain other.example\n";
    let parsed = "search a.example b.example .\nnameserver 1.1.1.1\nnameserver 1.0.0.1\n\
        options ndots:3 rotate timeout:1\n";
    for policy in [
        DnsPolicy::Default,
        DnsPolicy::ClusterFirst,
        DnsPolicy::ClusterFirstWithHostNet,
    ] {
        assert_eq!(text(&dns(policy, &[], &[], &[]), host), parsed);
    }
    assert_eq!(
        text(
            &dns(
                DnsPolicy::Default,
                &["1.1.1.1", "9.9.9.9"],
                &["c.example", "a.example"],
                &[
                    ("ndots", Some("5")),
                    ("rotate", None),
                    ("timeout", Some("")),
                    ("edns0", None)
                ],
            ),
            host,
        ),
        "search a.example b.example . c.example\nnameserver 1.1.1.1\nnameserver 1.0.0.1\nnameserver 9.9.9.9\n\
         options ndots:5 rotate timeout edns0\n",
    );
    assert_eq!(
        text(&dns(DnsPolicy::None, &["FD00::1"], &[], &[]), host),
        "nameserver FD00::1\n"
    );
    assert_eq!(text(&dns(DnsPolicy::None, &[], &[], &[]), host), "");
    assert_eq!(text(&dns(DnsPolicy::Default, &[], &[], &[]), ""), "");
}

#[test]
fn a_pod_of_its_own_network_has_the_clusters_resolver() {
    let namespace = Namespace::parse("ns").unwrap();
    let check = |policy, nameservers: &[&str], searches: &[&str], of_host: &str, expected: &str| {
        let dns = dns(policy, nameservers, searches, &[]);
        let network = PodNetwork::Own(&namespace);
        assert_eq!(resolv_conf(&dns, network, of_host).text, expected);
        assert!(!misses_cluster_dns(policy, network));
    };
    let host = "nameserver 1.1.1.1\nsearch a.example svc.cluster.local\noptions ndots:2 rotate\n";
    for policy in [DnsPolicy::ClusterFirst, DnsPolicy::ClusterFirstWithHostNet] {
        check(
            policy,
            &["9.9.9.9"],
            &["b.example"],
            host,
            "search ns.svc.cluster.local svc.cluster.local cluster.local a.example b.example\n\
             nameserver 169.254.20.10\nnameserver 9.9.9.9\noptions ndots:5\n",
        );
        check(
            policy,
            &[],
            &[],
            "",
            "search ns.svc.cluster.local svc.cluster.local cluster.local\n\
             nameserver 169.254.20.10\noptions ndots:5\n",
        );
    }
    check(
        DnsPolicy::Default,
        &[],
        &[],
        host,
        "search a.example svc.cluster.local\nnameserver 1.1.1.1\noptions ndots:2 rotate\n",
    );
    // What a pod cannot reach.
    check(
        DnsPolicy::Default,
        &[],
        &[],
        "nameserver 127.0.0.53\nnameserver ::1\nnameserver 1.1.1.1\nnameserver ::ffff:127.0.0.1\nsearch lan\noptions edns0\n",
        "search lan\nnameserver 169.254.20.10\nnameserver 1.1.1.1\noptions edns0\n",
    );
    check(
        DnsPolicy::None,
        &["127.0.0.1"],
        &[],
        host,
        "nameserver 127.0.0.1\n",
    );
    for (policy, expected) in [
        (DnsPolicy::ClusterFirst, false),
        (DnsPolicy::ClusterFirstWithHostNet, true),
        (DnsPolicy::Default, false),
        (DnsPolicy::None, false),
    ] {
        assert_eq!(
            misses_cluster_dns(policy, PodNetwork::Machine(None)),
            expected
        );
    }
}

#[test]
fn resolv_conf_keeps_the_resolvers_limits() {
    let none = |nameservers: &[&str], searches: &[String]| {
        let searches: Vec<&str> = searches.iter().map(String::as_str).collect();
        text(&dns(DnsPolicy::None, nameservers, &searches, &[]), "")
    };
    assert_eq!(
        none(
            &["1.1.1.1", "1.1.1.2", "1.1.1.1", "1.1.1.3", "1.1.1.4"],
            &[]
        ),
        "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\n"
    );
    let searches = |text: &str| -> Vec<String> {
        text.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    let numbered: Vec<String> = (0..40).map(|number| format!("d{number}")).collect();
    assert_eq!(searches(&none(&[], &numbered)), numbered[..32]);
    // Domains that are too long go, but count for the 32.
    let mut with_long = numbered.clone();
    with_long[0] = "x".repeat(254);
    with_long[1] = "x".repeat(253);
    assert_eq!(searches(&none(&[], &with_long)), with_long[1..32]);
    // 8 × 250 + 7 = 2007; a ninth would make it 2258.
    let long: Vec<String> = (0..20)
        .map(|number| format!("{number:02}{}", "x".repeat(248)))
        .collect();
    assert_eq!(searches(&none(&[], &long)), long[..8]);
    // Exactly 2048 fits.
    let mut exact = long[..8].to_vec();
    exact.push("y".repeat(2048 - 2008));
    assert_eq!(searches(&none(&[], &exact)), exact);
    exact[8].push('y');
    assert_eq!(searches(&none(&[], &exact)), exact[..8]);
}
