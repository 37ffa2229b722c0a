//! `httpGet` (`pkg/probe/http`).

use std::time::Duration;

use super::super::dial::Network;
use super::super::http::{self, Agent, Answer, Error};
use super::{Fault, Outcome};
use crate::model::plan::HttpGet;

/// A status from 200 to 399 is a success. A redirect that led to another host was not followed, and is a success that
/// somebody should look at.
pub(super) async fn check(
    network: &Network,
    request: &HttpGet,
    timeout: Duration,
) -> Result<Outcome, Fault> {
    match http::get(network, request, Agent::Probe, Some(timeout)).await {
        Ok(answer) => Ok(judge(&answer)),
        Err(error @ Error::Get { .. }) => Ok(Outcome::Failure(error.to_string())),
        // Not a failure: the kubelet throws it away, too.
        Err(error @ Error::Body(_)) => Err(Fault {
            state: "failure",
            message: error.to_string(),
        }),
    }
}

fn judge(answer: &Answer) -> Outcome {
    match answer.status {
        200..=299 => Outcome::Success,
        300..=399 => {
            let body = String::from_utf8_lossy(&answer.body);
            Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        // Without the body, which may be secret.
        status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let judge = |status| {
            judge(&Answer {
                status,
                body: b"body".to_vec(),
            })
        };
        for status in [200, 204, 299] {
            assert_eq!(judge(status), Outcome::Success, "{status}");
        }
        for status in [300, 302, 399] {
            let text = "Probe terminated redirects, Response body: body".to_owned();
            assert_eq!(judge(status), Outcome::Warning(text), "{status}");
        }
        for status in [199, 400, 404, 500, 999] {
            let text = format!("HTTP probe failed with statuscode: {status}");
            assert_eq!(judge(status), Outcome::Failure(text));
        }
    }
}
