//! Whose image it is that a container gets.

use super::*;
use crate::manager::Error;
use crate::manager::testing::{Machine, input, plan};

#[test]
fn what_another_engine_has_is_not_pulled() {
    let check = |policy, registries, damaged, expected: &str| {
        let mut machine = Machine::new();
        let reference = Reference::parse("other:1").unwrap();
        if damaged {
            machine.images.damaged_elsewhere.insert(reference.clone());
        }
        machine.images.elsewhere.insert(reference.clone());
        machine.images.there.insert(reference.clone());
        let mut plan = plan("a-0", "run");
        plan.containers[0].image = "other:1".into();
        plan.containers[0].reference = reference;
        plan.containers[0].pull_policy = policy;
        let mut input = input(&[]);
        input.plans.push(plan);
        input.options.registries = registries;
        let applied = machine.apply(&input);
        let found = match applied {
            Ok(_) => {
                let record = machine.view("a-0").unwrap().record;
                record.images.values().next().unwrap().clone()
            }
            Err(Error::Images(missing)) => missing[0].reason.to_owned(),
            Err(error) => panic!("{error}"),
        };
        assert!(found.ends_with(expected), "{policy:?}: {found}");
        let looked = machine.images.looked_elsewhere.borrow().len();
        let told = machine.told.iter();
        let told = told.filter(|event| matches!(event, Event::ImageImported(..)));
        assert_eq!(told.count(), usize::from(expected.ends_with("engine")));
        assert_eq!(
            looked,
            usize::from(!expected.ends_with("pulled") || damaged)
        );
    };
    use PullPolicy::{Always, IfNotPresent, Never};
    use Registries::{Allowed, Forbidden};
    check(IfNotPresent, Allowed, false, "of another engine");
    check(IfNotPresent, Allowed, true, "as pulled");
    check(Never, Allowed, false, "of another engine");
    check(Never, Allowed, true, "ErrImagePull");
    check(Always, Allowed, false, "as pulled");
    check(Always, Forbidden, false, "of another engine");
}

#[test]
fn a_signal_during_an_import_ends_the_command() {
    let mut machine = Machine::new();
    let reference = Reference::parse("other:1").unwrap();
    machine
        .images
        .interrupted_elsewhere
        .insert(reference.clone());
    machine.images.there.insert(reference.clone());
    let mut plan = plan("a-0", "run");
    plan.containers[0].image = "other:1".into();
    plan.containers[0].reference = reference;
    let mut input = input(&[]);
    input.plans.push(plan);
    match machine.apply(&input) {
        Err(Error::Interrupted { signal: 2 }) => {}
        other => panic!("{other:?}"),
    }
    assert!(
        machine.images.pulled.borrow().is_empty(),
        "nothing is pulled instead"
    );
}
