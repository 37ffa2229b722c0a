//! `events`, `get events`, and the events at the end of `describe`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration;
use super::object::{array, metadata, string};
use super::table::{Headers, Table};
use crate::model::event::{EventSeries, EventType};
use crate::model::status::time;

/// Who tells, to those who ask for a component.
const COMPONENT: &str = "kplay";

/// An event of a pod, which is a `v1.Pod`.
#[derive(Clone, Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) pod: &'a Value,
    pub(crate) series: EventSeries,
}

/// Which columns a table has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    pub(crate) headers: Headers,
    /// Whether the namespace comes first.
    pub(crate) namespaces: bool,
}

/// The table of `kubectl events`.
pub(crate) fn table(events: &[Shown<'_>], columns: Columns, now: Timestamp) -> String {
    let mut names = vec!["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    if columns.namespaces {
        names.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(names);
    for event in events {
        let series = &event.series;
        let mut cells = vec![
            interval(series, now),
            kind(series.event.r#type).to_owned(),
            series.event.reason.clone(),
            format!("Pod/{}", metadata(event.pod, "name")),
            series.event.message.trim().to_owned(),
        ];
        if columns.namespaces {
            cells.insert(0, metadata(event.pod, "namespace").to_owned());
        }
        table.push(cells);
    }
    table.render(columns.headers)
}

/// The table of `kubectl get events`; `wide` adds where exactly, from whom, since when and how often.
pub(crate) fn list(events: &[Shown<'_>], columns: Columns, wide: Wide, now: Timestamp) -> String {
    let mut names = match wide {
        Wide::No => vec!["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"],
        Wide::Yes => vec![
            "LAST SEEN",
            "TYPE",
            "REASON",
            "OBJECT",
            "SUBOBJECT",
            "SOURCE",
            "MESSAGE",
            "FIRST SEEN",
            "COUNT",
            "NAME",
        ],
    };
    if columns.namespaces {
        names.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(names);
    for event in events {
        let series = &event.series;
        let mut cells = vec![
            duration::since(series.event.time, now),
            kind(series.event.r#type).to_owned(),
            series.event.reason.clone(),
            format!("pod/{}", metadata(event.pod, "name")),
        ];
        let message = series.event.message.trim().to_owned();
        match wide {
            Wide::No => cells.push(message),
            Wide::Yes => cells.extend([
                field_path(event).unwrap_or_default(),
                format!("{COMPONENT}, {}", string(event.pod, "/spec/nodeName")),
                message,
                duration::since(series.first, now),
                series.count.to_string(),
                name(event),
            ]),
        }
        if columns.namespaces {
            cells.insert(0, metadata(event.pod, "namespace").to_owned());
        }
        table.push(cells);
    }
    table.render(columns.headers)
}

/// `-o wide`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wide {
    No,
    Yes,
}

/// The events of one pod, as `kubectl describe` shows them.
pub(crate) fn section(events: &[EventSeries], now: Timestamp) -> String {
    if events.is_empty() {
        return "Events:  <none>\n".to_owned();
    }
    let mut table = Table::new(vec!["  Type", "Reason", "Age", "From", "Message"]);
    table.push(
        ["  ----", "------", "----", "----", "-------"]
            .map(str::to_owned)
            .to_vec(),
    );
    for series in events {
        table.push(vec![
            format!("  {}", kind(series.event.r#type)),
            series.event.reason.clone(),
            interval(series, now),
            COMPONENT.to_owned(),
            series.event.message.trim().to_owned(),
        ]);
    }
    format!("Events:\n{}", table.render(Headers::Shown))
}

/// `5s`, or `5s (x3 over 2m)` of what happened more than once.
fn interval(series: &EventSeries, now: Timestamp) -> String {
    let first = duration::since(series.first, now);
    match series.count {
        0 | 1 => first,
        count => format!(
            "{} (x{count} over {first})",
            duration::since(series.event.time, now)
        ),
    }
}

/// The `v1.Event` of an event.
pub(crate) fn object(event: &Shown<'_>) -> Value {
    let Shown { pod, series } = event;
    let (first, last) = (time::text(&series.first), time::text(&series.event.time));
    let namespace = metadata(pod, "namespace");
    let host = string(pod, "/spec/nodeName");
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": name(event),
            "namespace": namespace,
            "creationTimestamp": first,
        },
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata(pod, "name"),
            "namespace": namespace,
            "uid": metadata(pod, "uid"),
        },
        "type": kind(series.event.r#type),
        "reason": series.event.reason,
        "message": series.event.message,
        "source": { "component": COMPONENT, "host": host },
        "firstTimestamp": first,
        "lastTimestamp": last,
        "count": series.count,
        "reportingComponent": COMPONENT,
        "reportingInstance": host,
    });
    if let (Some(path), Some(involved)) = (
        field_path(event),
        object
            .get_mut("involvedObject")
            .and_then(Value::as_object_mut),
    ) {
        involved.insert("fieldPath".into(), json!(path));
    }
    object
}

/// As client-go names events: the pod, and a number that is its own.
fn name(event: &Shown<'_>) -> String {
    let series = &event.series;
    let nanoseconds = series.first.as_nanosecond() + i128::from(series.number);
    format!("{}.{nanoseconds:x}", metadata(event.pod, "name"))
}

/// `spec.containers{web}`
fn field_path(event: &Shown<'_>) -> Option<String> {
    let container = event.series.event.container.as_ref()?;
    let inits = array(event.pod, "/spec/initContainers");
    let list = if inits
        .iter()
        .any(|init| string(init, "/name") == container.as_str())
    {
        "initContainers"
    } else {
        "containers"
    };
    Some(format!("spec.{list}{{{container}}}"))
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
    use crate::model::event::PodEvent;
    use crate::model::names::ContainerName;

    const COLUMNS: Columns = Columns {
        headers: Headers::Shown,
        namespaces: false,
    };

    fn series(count: u32) -> EventSeries {
        EventSeries {
            number: 1,
            first: "2026-01-01T00:00:00Z".parse().expect("a time"),
            count,
            event: PodEvent {
                time: "2026-01-01T00:01:50Z".parse().expect("a time"),
                r#type: EventType::Warning,
                reason: "BackOff".into(),
                message: "back-off 10s\nrestarting".into(),
                container: ContainerName::parse("init").ok(),
            },
        }
    }

    #[test]
    fn events_print_as_kubectl_prints_them() {
        let pod = json!({
            "metadata": { "name": "web-0", "namespace": "default", "uid": "u" },
            "spec": { "nodeName": "here", "initContainers": [{ "name": "init" }] },
        });
        let now = "2026-01-01T00:02:00Z".parse().expect("a time");
        let shown = |count| Shown {
            pod: &pod,
            series: series(count),
        };
        assert_eq!(
            table(&[shown(3)], COLUMNS, now),
            "LAST SEEN          TYPE      REASON    OBJECT      MESSAGE\n\
             10s (x3 over 2m)   Warning   BackOff   Pod/web-0   back-off 10s restarting\n"
        );
        assert_eq!(
            list(&[shown(3)], COLUMNS, Wide::No, now),
            "LAST SEEN   TYPE      REASON    OBJECT      MESSAGE\n\
             10s         Warning   BackOff   pod/web-0   back-off 10s restarting\n"
        );
        let columns = Columns {
            headers: Headers::Hidden,
            namespaces: true,
        };
        let name = name(&shown(3));
        assert_eq!(
            list(&[shown(3)], columns, Wide::Yes, now),
            format!(
                "default   10s   Warning   BackOff   pod/web-0   spec.initContainers{{init}}   kplay, here   back-off 10s restarting   2m    3     {name}\n"
            )
        );
        assert_eq!(
            section(&[series(1), series(3)], now),
            "Events:\n\
             \u{20} Type      Reason    Age                From    Message\n\
             \u{20} ----      ------    ----               ----    -------\n\
             \u{20} Warning   BackOff   2m                 kplay   back-off 10s restarting\n\
             \u{20} Warning   BackOff   10s (x3 over 2m)   kplay   back-off 10s restarting\n"
        );
        assert_eq!(section(&[], now), "Events:  <none>\n");
    }

    #[test]
    fn an_event_is_a_v1_event() {
        let pod = json!({
            "metadata": { "name": "web-0", "namespace": "default", "uid": "u" },
            "spec": { "nodeName": "here", "containers": [{ "name": "init" }] },
        });
        let event = object(&Shown {
            pod: &pod,
            series: series(3),
        });
        let typed: k8s_openapi::api::core::v1::Event =
            serde_json::from_value(event).expect("is a v1.Event");
        assert_eq!(typed.reason.as_deref(), Some("BackOff"));
        assert_eq!(typed.count, Some(3));
        assert_eq!(typed.involved_object.uid.as_deref(), Some("u"));
        assert_eq!(
            typed.involved_object.field_path.as_deref(),
            Some("spec.containers{init}")
        );
        assert!(typed.first_timestamp < typed.last_timestamp);
    }
}
