//! `get events`, and the events at the end of `describe`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration;
use super::table::{Headers, Table};
use crate::model::event::{EventType, PodEvent};
use crate::model::names::PodKey;
use crate::model::status::time;

/// The table of events of several pods, oldest first.
pub(crate) fn table(events: &[(PodKey, PodEvent)], headers: Headers, now: Timestamp) -> String {
    let mut table = Table::new(vec!["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    for (pod, event) in events {
        table.push(vec![
            duration::since(event.time, now),
            kind(event.r#type).to_owned(),
            event.reason.clone(),
            format!("pod/{}", pod.name),
            event.message.clone(),
        ]);
    }
    table.render(headers)
}

/// The events of one pod, as `kubectl describe` shows them.
pub(crate) fn section(events: &[PodEvent], now: Timestamp) -> String {
    if events.is_empty() {
        return "Events:  <none>\n".to_owned();
    }
    let mut table = Table::new(vec!["  Type", "Reason", "Age", "From", "Message"]);
    table.push(
        ["  ----", "------", "----", "----", "-------"]
            .map(str::to_owned)
            .to_vec(),
    );
    for event in events {
        table.push(vec![
            format!("  {}", kind(event.r#type)),
            event.reason.clone(),
            duration::since(event.time, now),
            "kplay".to_owned(),
            event.message.clone(),
        ]);
    }
    format!("Events:\n{}", table.render(Headers::Shown))
}

/// The `v1.Event` of an event.
pub(crate) fn object(pod: &PodKey, event: &PodEvent, number: usize) -> Value {
    let at = time::text(&event.time);
    let field = event
        .container
        .as_ref()
        .map(|name| format!("spec.containers{{{name}}}"));
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{}.{number:x}", pod.name),
            "namespace": pod.namespace,
            "creationTimestamp": at,
        },
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.name,
            "namespace": pod.namespace,
            "fieldPath": field,
        },
        "type": kind(event.r#type),
        "reason": event.reason,
        "message": event.message,
        "source": { "component": "kplay" },
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    })
}

fn kind(kind: EventType) -> &'static str {
    match kind {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::{Namespace, PodName};

    #[test]
    fn events_print_as_kubectl_prints_them() {
        let pod = PodKey {
            namespace: Namespace::default(),
            name: PodName::parse("web-0").expect("a name"),
        };
        let event = PodEvent {
            time: "2026-01-01T00:00:00Z".parse().expect("a time"),
            r#type: EventType::Warning,
            reason: "BackOff".into(),
            message: "back-off 10s\nrestarting".into(),
            container: None,
        };
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        let typed: k8s_openapi::api::core::v1::Event =
            serde_json::from_value(object(&pod, &event, 1)).expect("is a v1.Event");
        assert_eq!(typed.reason.as_deref(), Some("BackOff"));
        assert_eq!(
            table(&[(pod, event.clone())], Headers::Shown, now),
            "LAST SEEN   TYPE      REASON    OBJECT      MESSAGE\n\
             60s         Warning   BackOff   pod/web-0   back-off 10s restarting\n"
        );
        assert_eq!(
            section(&[event], now),
            "Events:\n\
             \u{20} Type      Reason    Age    From    Message\n\
             \u{20} ----      ------    ----   ----    -------\n\
             \u{20} Warning   BackOff   60s    kplay   back-off 10s restarting\n"
        );
        assert_eq!(section(&[], now), "Events:  <none>\n");
    }
}
