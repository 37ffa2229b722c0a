//! `system doctor` and `system info`.

use serde_json::{Value, json};

use super::style::{Colour, Style};

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// `ok`, `limited`, `fails`.
    pub(crate) verdict: &'static str,
    pub(crate) detail: String,
    pub(crate) remedy: Option<String>,
}

/// For people: a line each, and beneath it what would mend it.
pub(crate) fn lines(rows: &[Row], colour: Colour) -> String {
    const VERDICT: usize = 10;
    const NAME: usize = 20;
    let mut text = String::new();
    for row in rows {
        let style = match row.verdict {
            "ok" => Style::Hint,
            "limited" => Style::Warning,
            _ => Style::Error,
        };
        let verdict = colour.paint(style, row.verdict);
        let gap = " ".repeat(VERDICT.saturating_sub(row.verdict.len()));
        let detail = row.detail.replace('\n', " ");
        text.push_str(&format!("{verdict}{gap}{:<NAME$}{detail}\n", row.name));
        if let Some(remedy) = &row.remedy {
            let mend = colour.paint(Style::Hint, "mend");
            text.push_str(&format!("{:VERDICT$}{mend}: {remedy}\n", ""));
        }
    }
    text
}

/// For scripts.
pub(crate) fn object(rows: &[Row], fit: bool) -> Value {
    let checks: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name,
                "verdict": row.verdict,
                "detail": row.detail,
                "remedy": row.remedy,
            })
        })
        .collect();
    json!({ "apiVersion": "kplay/v1", "kind": "Doctor", "podsCanRun": fit, "checks": checks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_beneath_its_fault() {
        let rows = [
            Row {
                name: "kernel",
                verdict: "ok",
                detail: "Linux 6.1".to_owned(),
                remedy: None,
            },
            Row {
                name: "overlay",
                verdict: "fails",
                detail: "no such device".to_owned(),
                remedy: Some("modprobe overlay".to_owned()),
            },
        ];
        assert_eq!(
            lines(&rows, Colour::Off),
            "ok        kernel              Linux 6.1\n\
             fails     overlay             no such device\n          mend: modprobe overlay\n"
        );
        let object = object(&rows, false);
        assert_eq!(object["podsCanRun"], false);
        assert_eq!(object["checks"][1]["remedy"], "modprobe overlay");
        assert_eq!(object["checks"][0]["remedy"], Value::Null);
    }
}
