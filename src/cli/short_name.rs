//! Which image a short name means, asked at a terminal where `registries.conf` leaves it open, as podman asks
//! (containers/image's `shortnames.Resolve`). The answer is written down once the image is there.

use std::io::{self, BufRead, IsTerminal as _};

use super::error::Error;
use super::session::Session;
use crate::image::registries::RegistriesConf;
use crate::image::{self, Store};
use crate::model::reference::{ImageName, Reference};
use crate::output::Ui;

/// What was chosen for a short name.
#[derive(Debug)]
pub(super) struct Chosen {
    short: String,
    reference: Reference,
}

impl Chosen {
    /// The image.
    pub(super) fn name(&self) -> ImageName {
        self.reference.clone().into()
    }

    /// Has nobody asked again.
    pub(super) fn record(&self, registries: &RegistriesConf) -> Result<(), Error> {
        let recorded = registries.record_alias(&self.short, &self.reference);
        Ok(recorded.map_err(image::Error::from)?)
    }
}

/// Asks which image is meant, if that has to be asked and there is somebody to answer. What is in the store already is
/// meant.
///
/// # Errors
/// The configuration or the store cannot be read; no answer, or none of those that can be given.
pub(super) fn choose(
    image: &ImageName,
    registries: &RegistriesConf,
    store: &Store,
    session: &Session,
) -> Result<Option<Chosen>, Error> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let candidates = registries.candidates(image).map_err(image::Error::from)?;
    let (Some(candidates), Some(short)) = (candidates, image.short()) else {
        return Ok(None);
    };
    for name in registries.stored_names(image).map_err(image::Error::from)? {
        if store.find(&name)?.is_some() {
            return Ok(None);
        }
    }
    let reference = ask(&candidates, &session.ui, &mut io::stdin().lock())?;
    Ok(Some(Chosen {
        short: short.to_owned(),
        reference,
    }))
}

fn ask(candidates: &[Reference], ui: &Ui, answers: &mut impl BufRead) -> Result<Reference, Error> {
    let mut question = String::from("Please select an image:\n");
    for (number, candidate) in (1..).zip(candidates) {
        question.push_str(&format!("{number:4}  {candidate}\n"));
    }
    ui.ask(&question);
    loop {
        ui.ask("Number (1): ");
        let mut line = String::new();
        let read = answers.read_line(&mut line);
        let read = read.map_err(|source| Error::Machine {
            what: "read the answer",
            source,
        })?;
        if read == 0 {
            return Err(Error::usage("no image was selected"));
        }
        if let Some(chosen) = answer(line.trim(), candidates) {
            return Ok(chosen.clone());
        }
    }
}

/// By number, or by its name.
fn answer<'a>(text: &str, candidates: &'a [Reference]) -> Option<&'a Reference> {
    if text.is_empty() {
        return candidates.first();
    }
    match text.parse::<usize>() {
        Ok(number) => candidates.get(number.checked_sub(1)?),
        Err(_) => candidates
            .iter()
            .find(|candidate| candidate.to_string() == text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_number_or_a_name() {
        let candidates = ["a.test/x:1", "b.test/x:1"].map(|name| Reference::parse(name).unwrap());
        let check = |text: &str, expected: Option<usize>| {
            let found = answer(text, &candidates);
            assert_eq!(found, expected.map(|index| &candidates[index]), "{text:?}");
        };
        check("", Some(0));
        check("1", Some(0));
        check("2", Some(1));
        check("b.test/x:1", Some(1));
        check("0", None);
        check("3", None);
        check("-1", None);
        check("x", None);
    }
}
