use super::*;

fn key(name: &str) -> ClaimKey {
    (Namespace::default(), name.to_owned())
}

fn modes(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn storage(name: &str) -> ClaimStorage {
    ClaimStorage::LocalPath {
        path: format!("/{name}").into(),
    }
}

fn volume(name: &str, capacity: &str) -> (String, PersistentVolume) {
    let volume = PersistentVolume {
        class: String::new(),
        access_modes: modes("ReadWriteOnce"),
        capacity: Quantity::parse(capacity).unwrap(),
        mode: VolumeMode::Filesystem,
        claim: None,
        labels: BTreeMap::new(),
        storage: Some(storage(name)),
    };
    (name.to_owned(), volume)
}

fn claim(request: &str) -> Claim {
    Claim {
        volume_name: None,
        class: String::new(),
        access_modes: modes("ReadWriteOnce"),
        request: Quantity::parse(request).unwrap(),
        mode: VolumeMode::Filesystem,
        selector: Selector::default(),
    }
}

fn recorded(name: &str, claim: Claim) -> Candidate<'static> {
    Candidate {
        key: key(name),
        claim: Some(claim),
        at: None,
        recorded: true,
    }
}

/// As the first time it is seen, without a place.
fn new(name: &str, claim: Claim) -> Candidate<'static> {
    Candidate {
        recorded: false,
        ..recorded(name, claim)
    }
}

/// What each claim got: a PersistentVolume's name, `folder`, or the fault.
#[track_caller]
fn check(
    volumes: impl IntoIterator<Item = (String, PersistentVolume)>,
    claims: &[Candidate<'_>],
    expected: &[&str],
) {
    let report = Report::default();
    let bindings = Bindings::new(claims, &volumes.into_iter().collect(), &report);
    let got = claims.iter().map(
        |claim| match bindings.get(&claim.key.0, &claim.key.1).unwrap() {
            Binding::Bound(None, ClaimStorage::Folder) => "folder".to_owned(),
            Binding::Bound(Some(name), got) if *got == storage(name) => name.clone(),
            Binding::Lost(fault) => fault.split_once(": ").unwrap().1.to_owned(),
            other => format!("{other:?}"),
        },
    );
    assert_eq!(got.collect::<Vec<_>>(), expected);
    assert_eq!(report.finish(&[]), []);
}

#[test]
fn a_claim_gets_the_smallest_volume_that_satisfies_it() {
    let volumes = || [volume("a", "10Gi"), volume("b", "2Gi"), volume("c", "2Gi")];
    check(volumes(), &[new("x", claim("1Gi"))], &["b"]);
    check(volumes(), &[new("x", claim("2.5Gi"))], &["a"]);
    check(volumes(), &[new("x", claim("11Gi"))], &["folder"]);
    let three = || ["x", "y", "z"].map(|name| new(name, claim("1Gi")));
    check(volumes(), &three(), &["b", "c", "a"]);
    check([volume("a", "1Gi")], &three(), &["a", "folder", "folder"]);
    check([], &[new("x", claim("1Gi"))], &["folder"]);
}

#[test]
fn a_block_device_is_bound_and_never_made() {
    let volumes = || {
        let mut block = volume("b", "1Gi");
        block.1.mode = VolumeMode::Block;
        [volume("a", "1Gi"), block]
    };
    let block = || Claim {
        mode: VolumeMode::Block,
        ..claim("1Gi")
    };
    let claims = [new("x", block()), new("y", claim("1Gi"))];
    check(volumes(), &claims, &["b", "a"]);
    let none = "no free PersistentVolume with `volumeMode: Block` satisfies it, and kplay makes folders only";
    check(
        volumes(),
        &[new("x", block()), new("y", block())],
        &["b", none],
    );
    let named = Claim {
        volume_name: Some("a".into()),
        ..block()
    };
    check(
        volumes(),
        &[new("x", named)],
        &["the PersistentVolume `a` has another `volumeMode`"],
    );
}

#[test]
fn class_access_modes_and_labels_must_fit() {
    let with = |change: &dyn Fn(&mut PersistentVolume)| {
        let mut volume = volume("a", "1Gi");
        change(&mut volume.1);
        [volume]
    };
    let asking = |change: &dyn Fn(&mut Claim)| {
        let mut claim = claim("1Gi");
        change(&mut claim);
        [new("x", claim)]
    };
    let plain = || asking(&|_| {});
    let fast = || with(&|volume| volume.class = "fast".into());
    check(fast(), &plain(), &["folder"]);
    check(
        fast(),
        &asking(&|claim| claim.class = "fast".into()),
        &["a"],
    );
    let many = || asking(&|claim| claim.access_modes = modes("ReadWriteMany"));
    check(with(&|_| {}), &many(), &["folder"]);
    check(
        with(&|volume| volume.access_modes = modes("ReadWriteMany ReadWriteOnce")),
        &many(),
        &["a"],
    );
    let green = || asking(&|claim| claim.selector = Selector::parse("color=green").unwrap());
    check(with(&|_| {}), &green(), &["folder"]);
    let label = |volume: &mut PersistentVolume| {
        volume.labels.insert("color".into(), "green".into());
    };
    check(with(&label), &green(), &["a"]);
    check(with(&|volume| volume.storage = None), &plain(), &["folder"]);
}

#[test]
fn names_and_reservations_come_first() {
    let named = |name: &str| Claim {
        volume_name: Some(name.to_owned()),
        ..claim("1Gi")
    };
    let reserved = |name: &str, for_claim: &str| {
        let (name, mut volume) = volume(name, "5Gi");
        volume.claim = Some(key(for_claim));
        (name, volume)
    };
    // Though the first one would have got it.
    check(
        [volume("a", "1Gi")],
        &[new("x", claim("1Gi")), new("y", named("a"))],
        &["folder", "a"],
    );
    check(
        [volume("a", "1Gi"), reserved("b", "x")],
        &[new("x", claim("1Gi")), new("y", claim("2Gi"))],
        &["b", "folder"],
    );
    let refused = |volumes: Vec<(String, PersistentVolume)>, name: &str, words: &str| {
        check(volumes, &[new("x", named(name))], &[words]);
    };
    refused(vec![], "a", "there is no PersistentVolume `a`");
    refused(
        vec![reserved("a", "y")],
        "a",
        "the PersistentVolume `a` is reserved for the claim `y` in namespace `default`",
    );
    refused(
        vec![volume("a", "1Mi")],
        "a",
        "the PersistentVolume `a` is smaller than what is requested",
    );
    let mut elsewhere = volume("a", "1Gi");
    elsewhere.1.storage = None;
    refused(
        vec![elsewhere],
        "a",
        "the PersistentVolume `a` is on no path of this machine (`hostPath` or `local`)",
    );
    check(
        [volume("a", "1Gi")],
        &[new("x", named("a")), new("y", named("a"))],
        &["a", "the PersistentVolume `a` is bound to another claim"],
    );
}

#[test]
fn what_is_bound_stays_bound() {
    // It has a folder with data in it, though a volume would do now.
    check(
        [volume("a", "1Gi")],
        &[recorded("x", claim("1Gi")), new("y", claim("1Gi"))],
        &["folder", "a"],
    );
}
