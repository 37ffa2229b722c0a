//! `exec` (`pkg/probe/exec`): a command in the container.

use std::rc::Rc;
use std::time::Duration;

use super::super::command;
use super::super::context::Context;
use super::super::lifecycle::Index;
use super::super::status::go_duration;
use super::{Fault, Outcome};
use crate::model::cause::chain;
use crate::runtime::Runtime;

/// Exit code 0 is a success. A command that takes too long is killed, and has failed.
pub(super) async fn check<R: Runtime>(
    context: &Rc<Context<R>>,
    container: Index,
    words: &[String],
    timeout: Duration,
) -> Result<Outcome, Fault> {
    let command = command::run(context, container, words.to_vec());
    match tokio::time::timeout(timeout, command).await {
        Ok(Ok(done)) if done.code == 0 => Ok(Outcome::Success),
        Ok(Ok(done)) => {
            let output = String::from_utf8_lossy(&done.output).into_owned();
            Ok(Outcome::Failure(output))
        }
        Ok(Err(error)) => Err(Fault::unknown(chain(&error))),
        Err(_) => {
            let (words, timeout) = (words.join(" "), go_duration(timeout.as_secs()));
            let text = format!("command timed out: {words:?} timed out after {timeout}");
            Ok(Outcome::Failure(text))
        }
    }
}
