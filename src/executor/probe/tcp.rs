//! `tcpSocket` (`pkg/probe/tcp`): connects, no more.

use std::time::Duration;

use super::super::dial::Network;
use super::Outcome;

pub(super) async fn check(
    network: &Network,
    host: Option<&str>,
    port: u16,
    timeout: Duration,
) -> Outcome {
    match tokio::time::timeout(timeout, network.connect(host, port)).await {
        Ok(Ok(_connection)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(error.to_string()),
        Err(_) => {
            let address = network.host_and_port(host, port);
            Outcome::Failure(format!("dial tcp {address}: i/o timeout"))
        }
    }
}
