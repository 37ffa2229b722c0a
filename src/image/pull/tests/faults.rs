//! Registries that fail in the middle, and pulls that wait for each other.

use std::time::Instant;

use super::*;
use crate::image::registry::Then;

/// Short enough for a test, long enough for a machine that is busy.
const SILENCE: Duration = Duration::from_millis(400);

/// What a pull did.
struct Tried {
    result: Result<Image, Error>,
    troubles: Vec<Trouble>,
    took: Duration,
    setup: Setup,
}

/// Pulls `app:1` from a registry that has it and does `act`; silence is noticed soon.
fn tried(registry: &Registry, act: impl FnOnce(&Registry, &Sample)) -> Tried {
    let (setup, sample) = (Setup::new(), sample());
    registry.add("app", "1", &sample);
    act(registry, &sample);
    let options = PullOptions {
        silence: SILENCE,
        ..options()
    };
    let troubles = RefCell::default();
    let progress = |step| {
        if let PullProgress::Trouble(trouble) = step {
            let mut all: std::cell::RefMut<'_, Vec<Trouble>> = troubles.borrow_mut();
            all.push(trouble);
        }
    };
    let (name, start) = (registry.reference("app:1").into(), Instant::now());
    let result = runtime().block_on(pull(&setup.store, &name, &options, &progress));
    Tried {
        result,
        troubles: troubles.into_inner(),
        took: start.elapsed(),
        setup,
    }
}

impl Tried {
    #[track_caller]
    fn fails(&self, class: Class, part: &str) {
        let error = self.result.as_ref().expect_err("it fails");
        let text = chain(error);
        assert_eq!(error.class(), class, "{text}");
        assert!(text.contains(part), "{text}");
        assert_eq!(self.setup.left(), 0);
    }

    #[track_caller]
    fn recovers(&self, troubles: usize, part: &str) {
        let image = self.result.as_ref().map_err(|error| chain(error));
        let layer = &image.expect("it goes well").layers[1];
        assert_eq!(tree(layer), "755 0:0 /\n644 0:0 big = 2000000 bytes");
        let texts: Vec<&str> = self.troubles.iter().map(|t| t.fault.as_str()).collect();
        assert_eq!(texts.len(), troubles, "{texts:?}");
        assert!(texts.iter().all(|text| text.contains(part)), "{texts:?}");
    }
}

fn anybody() -> Registry {
    Registry::start(Access::Anybody)
}

fn times(registry: &Registry, part: &str) -> usize {
    let log = registry.log();
    log.iter().filter(|path| path.contains(part)).count()
}

#[test]
fn what_passes_is_tried_again_and_told() {
    if !can_be_root() {
        return;
    }
    tried(&anybody(), |r, _| {
        r.act("manifests/1", 1, Act::Status(500, ""));
    })
    .recovers(1, "status 500");
    tried(&anybody(), |r, s| {
        r.act(blob(s, 1), 2, Act::Status(503, ""));
    })
    .recovers(2, "status 503");
    tried(&anybody(), |r, s| {
        r.act(Digest::of(&s.config), 1, Act::Status(429, ""));
    })
    .recovers(1, "wants fewer requests");
    let registry = anybody();
    tried(&registry, |r, _| {
        r.act("manifests/1", 99, Act::Status(500, "it burns"));
    })
    .fails(Class::Registry, "status 500: it burns");
    assert_eq!(times(&registry, "manifests/1"), WAITS.len() + 1);
}

#[test]
fn what_does_not_pass_is_asked_for_once() {
    if !can_be_root() {
        return;
    }
    for status in [400, 401, 403, 404] {
        let registry = anybody();
        let tried = tried(&registry, |r, _| {
            r.act("manifests/1", 9, Act::Status(status, ""));
        });
        assert!(tried.result.is_err());
        assert_eq!(
            (times(&registry, "manifests/1"), tried.troubles.len()),
            (1, 0)
        );
    }
}

#[test]
fn a_registry_says_when_to_come_again() {
    if !can_be_root() {
        return;
    }
    for status in [429, 503] {
        let tried = tried(&anybody(), |r, s| {
            r.act(blob(s, 1), 1, Act::ComeAgain(status, "1"));
        });
        tried.recovers(1, ", to be asked again in 1 s");
        let then = tried.troubles[0].then;
        assert_eq!(then, Then::Again(Duration::from_secs(1)));
        assert!(tried.took >= Duration::from_secs(1));
    }
    let past = "Wed, 21 Oct 2015 07:28:00 GMT";
    tried(&anybody(), |r, s| {
        r.act(blob(s, 1), 1, Act::ComeAgain(429, past));
    })
    .recovers(1, ", to be asked again in 0 s");
    // Nobody waits for an hour.
    let registry = anybody();
    tried(&registry, |r, s| {
        r.act(blob(s, 1), 9, Act::ComeAgain(429, "3600"));
    })
    .fails(Class::Registry, "to be asked again in 3600 s");
    assert_eq!(times(&registry, &blob(&sample(), 1)), 1);
}

#[test]
fn a_broken_download_goes_on_where_it_was() {
    if !can_be_root() {
        return;
    }
    let registry = anybody();
    tried(&registry, |r, s| r.act(blob(s, 1), 2, Act::Cut(500_000))).recovers(2, "broke");
    assert_eq!(times(&registry, " from 500000"), 1);
    assert_eq!(times(&registry, " from 1000000"), 1);
    // It goes on for as long as something comes.
    let often = WAITS.len() as u32 + 2;
    let size = sample().layers[1].len();
    let piece = size.div_ceil(often as usize + 1);
    tried(&anybody(), |r, s| r.act(blob(s, 1), 99, Act::Cut(piece)))
        .recovers(often as usize, "broke");
    // A registry without ranges sends everything again.
    tried(&Registry::without_ranges(), |r, s| {
        r.act(blob(s, 1), 1, Act::Cut(500_000));
    })
    .recovers(1, "broke");
    // One that sends another part is not believed.
    tried(&anybody(), |r, s| {
        r.act(blob(s, 1), 1, Act::Cut(500_000));
        r.act(blob(s, 1), 1, Act::Misplace(10));
    })
    .fails(Class::Registry, "leaves out a part");
    // What is all there is all there, however it ended.
    let registry = anybody();
    tried(&registry, |r, s| r.act(blob(s, 1), 1, Act::Stretch(10))).recovers(0, "");
    assert_eq!(times(&registry, " from "), 0);
}

#[test]
fn a_registry_that_goes_silent_is_left_and_asked_again() {
    if !can_be_root() {
        return;
    }
    let said = "bytes of its answer in";
    let registry = anybody();
    tried(&registry, |r, s| r.act(blob(s, 1), 1, Act::Stall(500_000))).recovers(1, said);
    assert_eq!(times(&registry, " from 500000"), 1);
    tried(&anybody(), |r, _| r.act("manifests/1", 1, Act::Stall(5))).recovers(1, said);
    tried(&anybody(), |r, s| r.act(blob(s, 1), 1, Act::Silence)).recovers(1, "not answered");
    let slow = tried(&anybody(), |r, s| r.act(blob(s, 1), 99, Act::Trickle));
    slow.fails(Class::Unreachable, said);
    let most = SILENCE * (WAITS.len() as u32 + 1) + Duration::from_secs(5);
    assert!(slow.took < most, "{:?}", slow.took);
    assert_eq!(slow.troubles.len(), WAITS.len());
}

#[test]
fn no_answer_is_longer_than_it_should_be() {
    if !can_be_root() {
        return;
    }
    tried(&anybody(), |r, s| r.act(blob(s, 1), 9, Act::Endless))
        .fails(Class::Corrupt, "has more than the");
    tried(&anybody(), |r, s| {
        r.act(Digest::of(&s.config), 9, Act::Endless);
    })
    .fails(Class::Corrupt, "has more than the");
    tried(&anybody(), |r, _| r.act("manifests/1", 9, Act::Endless))
        .fails(Class::Hostile, "`app:1` has more than 4194304 bytes");
    tried(&anybody(), |r, s| r.act(blob(s, 1), 99, Act::Shorten(0)))
        .fails(Class::Corrupt, "ends after 0 of");
}

#[test]
fn images_share_slots_and_layers() {
    if !can_be_root() {
        return;
    }
    let (registry, setup, sample) = (anybody(), Setup::new(), sample());
    registry.add("app", "1", &sample);
    registry.add("other", "1", &sample);
    let options = PullOptions {
        slots: Slots::new(1),
        ..options()
    };
    let at_work = std::cell::Cell::new(0_u32);
    let progress = |step| match step {
        PullProgress::Started { .. } => {
            at_work.set(at_work.get() + 1);
            assert_eq!(at_work.get(), 1);
        }
        PullProgress::LayerDone { .. } => at_work.set(at_work.get().saturating_sub(1)),
        _ => {}
    };
    let names = ["app:1", "other:1"].map(|name| registry.reference(name).into());
    let pulls = names
        .iter()
        .map(|name| pull(&setup.store, name, &options, &progress));
    let pulled = runtime().block_on(futures_util::future::join_all(pulls));
    assert!(pulled.iter().all(Result::is_ok), "{pulled:?}");
    assert_eq!(times(&registry, &blob(&sample, 0)), 1);
    assert_eq!(times(&registry, &blob(&sample, 1)), 1);
}

#[test]
fn who_waits_for_a_layer_takes_over_or_can_go() {
    if !can_be_root() {
        return;
    }
    let (registry, setup, sample) = (anybody(), Setup::new(), sample());
    registry.add("app", "1", &sample);
    let (name, options) = (registry.reference("app:1").into(), options());
    // Somebody has it, for ever: the pull can be given up, and nothing of it waits.
    let claim = setup.store.claim_layer(&sample.chain[1]).expect("a lock");
    let waits = tokio::sync::Notify::new();
    let progress = |step| {
        if let PullProgress::Waiting { layer } = step {
            assert_eq!(layer, Digest::of(&sample.layers[1]).to_string());
            waits.notify_one();
        }
    };
    runtime().block_on(async {
        tokio::select! {
            pulled = pull(&setup.store, &name, &options, &progress) => panic!("{pulled:?}"),
            () = waits.notified() => {}
        }
    });
    // It ends without the layer.
    let claim = RefCell::new(Some(claim));
    let progress = |step| {
        if let PullProgress::Waiting { .. } = step {
            claim.replace(None);
        }
    };
    let pulled = runtime().block_on(pull(&setup.store, &name, &options, &progress));
    assert_eq!(pulled.expect("pulled").id, sample.id());
}
