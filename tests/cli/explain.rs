//! `explain` and `man`: what is said of fields.

use std::fs;

use crate::harness::Kplay;

#[test]
fn a_field_is_explained_with_what_kplay_makes_of_it() {
    let kplay = Kplay::new();
    insta::assert_snapshot!(kplay.run("explain deploy.spec.replicas").to_string(), @r"
    exit code 0
    --- stdout
    KIND:    Deployment
    VERSION: apps/v1

    FIELD: replicas <integer>

    MEANING:
        How many pods there are

    KPLAY:
        `1` is honoured, all else is ignored: one pod is played
    --- stderr
    ");
    let check = |field: &str, has: &[&str]| {
        let run = kplay.run(&format!("explain {field}"));
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run}");
        for text in has {
            assert!(run.stdout.contains(text), "{field}: no {text:?} in {run}");
        }
    };
    check(
        "pod",
        &["\nFIELDS:\n  apiVersion <string>\n", "\n  spec <PodSpec>\n"],
    );
    check(
        "pods.spec.containers.image",
        &["FIELD: image <string>\n", "KPLAY:\n    honoured\n"],
    );
    check(
        "po.spec.containers[0].env[]",
        &["FIELD: env <[]EnvVar>", "\n  valueFrom <"],
    );
    check(
        "cj.spec.jobTemplate.spec.template.spec.nodeName",
        &["KPLAY:\n    ignored: "],
    );
    check(
        "pod.spec.volumes.nfs.server",
        &["KPLAY:\n    `nfs` is refused: "],
    );
    check(
        "svc.spec.ports",
        &[
            "FIELD: ports <[]ServicePort>\n",
            "\n  protocol <string>  (honoured, but `SCTP` is refused)\n",
        ],
    );
    check(
        "service.spec.loadBalancerIP",
        &["KPLAY:\n    ignored: the load balancer's address is the machine's\n"],
    );
    check(
        "sts --recursive",
        &[
            "\n  spec <",
            "\n    template <",
            "\n        containers <[]Container>\n",
        ],
    );
}

#[test]
fn what_is_no_field_is_not_found() {
    let kplay = Kplay::new();
    let check = |field: &str, said: &str| {
        let run = kplay.run(&format!("explain {field}"));
        assert_eq!((run.code, run.stdout.as_str()), (Some(5), ""), "{run}");
        assert!(run.stderr.contains(said), "{field}: {run}");
    };
    check("pod.spec.contianers", "did you mean `pod.spec.containers`?");
    check(
        "pod.spec.containers.imag.x",
        "did you mean `pod.spec.containers.image`?",
    );
    check(
        "pod.spec.hostUsers.no",
        "`pod.spec.hostUsers` has no fields",
    );
    check("pod.spec.qqqqqqqq", "there is `activeDeadlineSeconds`, ");
    check("deplyoment.spec", "did you mean `deployment`?");
    check("nonsense", "no fields are known of the type `nonsense`");
}

#[test]
fn the_manual_has_a_page_for_every_command_and_one_for_fields() {
    let kplay = Kplay::new();
    let run = kplay.run("man pages/man");
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{run}");
    let page =
        |name: &str| fs::read_to_string(kplay.path(&format!("pages/man/{name}"))).expect("a page");
    assert!(page("kplay.1").contains("kplay\\-apply(1)"));
    assert!(page("kplay-apply.1").contains("\\fB\\-\\-timeout\\fR"));
    assert!(page("kplay-image-pull.1").contains(".SH SYNOPSIS"));
    let fields = page("kplay-fields.7");
    assert!(fields.contains(".SH PodSpec\n"));
    assert!(fields.contains(".TP\n\\fBreplicas\\fR \\fIinteger\\fR\n"));
    let count = fs::read_dir(kplay.path("pages/man"))
        .expect("the folder")
        .count();
    assert!(run.stderr.starts_with(&format!("{count} pages")), "{run}");
    let again = kplay.run("man /dev/null/man");
    assert_eq!(again.code, Some(4), "{again}");
}
