//! The termination message (`kuberuntime_container.go:getTerminationMessage`).

use std::path::Path;

use super::container::termination_log;
use super::context::Context;
use crate::model::cause::chain;
use crate::model::plan::{ContainerPlan, TerminationMessagePolicy};
use crate::state::logs;
use crate::sys::fs;
use crate::sys::pidfd::Exit;

/// The end of the file counts, up to this many bytes.
const LONGEST: usize = 4096;
/// The end of the log counts, up to this many bytes and lines, whichever is less.
const LONGEST_LOG: usize = 2048;
const LINES: usize = 80;
/// What all messages of a pod may have together, in bytes.
const POD_TOTAL: usize = 12 * 1024;

/// What the container has to say about its end.
pub(super) fn message<R>(
    context: &Context<R>,
    plan: &ContainerPlan,
    attempt: u32,
    dir: &Path,
    exit: Exit,
) -> Option<String> {
    let mut text = fs::read_tail(&termination_log(dir), LONGEST).unwrap_or_else(|error| {
        // The container may have done anything to its file; that it says nothing is the truth then.
        tracing::debug!(error = chain(&error), "no termination message");
        Vec::new()
    });
    let falls_back =
        plan.termination_message_policy == TerminationMessagePolicy::FallbackToLogsOnError;
    if text.is_empty() && falls_back && exit.code() != 0 {
        let log_dir = context.launch.log_dir.join(plan.name.as_str());
        text = end_of_log(&log_dir, attempt).unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "cannot read the end of a log");
            Vec::new()
        });
    }
    text.truncate(POD_TOTAL / context.launch.plan.all_containers().count().max(1));
    let text = String::from_utf8_lossy(&text).into_owned();
    (!text.is_empty()).then_some(text)
}

fn end_of_log(dir: &Path, attempt: u32) -> Result<Vec<u8>, logs::Error> {
    let options = logs::Options {
        tail: Some(LINES),
        since: None,
        streams: logs::Streams::Both,
    };
    let mut text = Vec::new();
    logs::read(dir, attempt, &options, &mut |line| {
        line.write_to(&mut text, logs::Timestamps::Hidden)
    })?;
    let excess = text.len().saturating_sub(LONGEST_LOG);
    text.drain(..excess);
    Ok(text)
}
