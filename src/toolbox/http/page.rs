//! The page: what the pod sees, for people, for curl and for programs.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::Server;
use super::root::{Content, Shown};
use super::routes::PATHS;
use crate::toolbox::identity;

/// What the page says.
#[derive(Debug)]
pub(super) struct Facts {
    hostname: String,
    client: SocketAddr,
    uptime_ms: u128,
    environment: Vec<(String, String)>,
    root: Option<String>,
    files: Vec<Shown>,
}

/// The kernel's host name.
pub(super) fn hostname() -> String {
    match nix::unistd::gethostname() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(e) => format!("unknown ({e})"),
    }
}

/// The environment as an object.
pub(super) fn environment_json(environment: &[(String, String)]) -> Value {
    let pair = |(name, value): &(String, String)| (name.clone(), Value::from(value.as_str()));
    Value::Object(environment.iter().map(pair).collect::<Map<_, _>>())
}

impl Facts {
    pub(super) fn collect(client: SocketAddr, server: &Server) -> Self {
        let root = server.root.as_ref();
        Self {
            hostname: hostname(),
            client,
            uptime_ms: server.started.elapsed().as_millis(),
            environment: identity::environment(),
            root: root.map(|root| root.path().display().to_string()),
            files: root.map(super::Root::shown).unwrap_or_default(),
        }
    }

    fn uptime(&self) -> String {
        format!("{}.{:03} s", self.uptime_ms / 1000, self.uptime_ms % 1000)
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "hello from {}\n\nhostname: {}\nclient: {}\nuptime: {}\n",
            self.hostname,
            self.hostname,
            self.client,
            self.uptime()
        );
        if let Some(root) = &self.root {
            text.push_str(&format!("\nfiles in {root}:\n"));
            for file in &self.files {
                text.push_str(&format!("  {} ({} bytes)\n", file.path, file.size));
                for line in describe(&file.content).lines() {
                    text.push_str(&format!("    {line}\n"));
                }
            }
        }
        text.push_str("\nenvironment:\n");
        for (name, value) in &self.environment {
            text.push_str(&format!("  {name}={value}\n"));
        }
        text
    }

    pub(super) fn json(&self) -> String {
        let file = |file: &Shown| {
            let content = match &file.content {
                Content::Text(text) | Content::Cut(text) => Some(text),
                Content::Binary | Content::Unreadable(_) => None,
            };
            json!({
                "path": file.path,
                "size": file.size,
                "content": content,
                "truncated": matches!(file.content, Content::Cut(_)),
            })
        };
        let facts = json!({
            "hostname": self.hostname,
            "client": self.client.to_string(),
            "uptimeSeconds": self.uptime_ms as f64 / 1000.0,
            "root": self.root,
            "files": self.files.iter().map(file).collect::<Vec<_>>(),
            "env": environment_json(&self.environment),
        });
        format!("{facts:#}\n")
    }

    pub(super) fn html(&self) -> String {
        let hostname = escape(&self.hostname);
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{hostname}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
             <h1>hello from {hostname}</h1>\n"
        );
        html.push_str(&table(&[
            ("hostname".to_owned(), self.hostname.clone()),
            ("your address".to_owned(), self.client.to_string()),
            ("up for".to_owned(), self.uptime()),
        ]));
        if let Some(root) = &self.root {
            html.push_str(&format!(
                "<h2>Files in <code>{}</code></h2>\n",
                escape(root)
            ));
            for file in &self.files {
                html.push_str(&file_html(file));
            }
            if self.files.is_empty() {
                html.push_str("<p>none</p>\n");
            }
        }
        html.push_str("<h2>Environment</h2>\n");
        html.push_str(&table(&self.environment));
        html.push_str("<h2>Paths</h2>\n");
        let paths: Vec<_> = PATHS
            .iter()
            .map(|(path, about)| ((*path).to_owned(), (*about).to_owned()))
            .collect();
        html.push_str(&table(&paths));
        html.push_str("</body>\n</html>\n");
        html
    }
}

const STYLE: &str = ":root{color-scheme:light dark}\
    body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}\
    h1{font-weight:600}h2{margin-top:2rem;font-size:1.1rem}h3{font-size:1rem;margin-bottom:.3rem}\
    table{border-collapse:collapse;width:100%}\
    th,td{text-align:left;vertical-align:top;padding:.25rem 1rem .25rem 0;border-bottom:1px solid #8884}\
    th{font-weight:500;white-space:nowrap}td,pre,code{font-family:ui-monospace,monospace;font-size:.9rem}\
    td{overflow-wrap:anywhere}pre{padding:.75rem;border:1px solid #8884;border-radius:.4rem;overflow:auto;margin:0}\
    small{opacity:.7;font-weight:400}";

fn table(rows: &[(String, String)]) -> String {
    let row = |(name, value): &(String, String)| {
        format!(
            "<tr><th>{}</th><td>{}</td></tr>\n",
            escape(name),
            escape(value)
        )
    };
    format!(
        "<table>\n{}</table>\n",
        rows.iter().map(row).collect::<String>()
    )
}

fn file_html(file: &Shown) -> String {
    let link = file
        .path
        .split('/')
        .map(percent_encode)
        .collect::<Vec<_>>()
        .join("/");
    format!(
        "<h3><a href=\"/files/{link}\">{}</a> <small>{} bytes</small></h3>\n<pre>{}</pre>\n",
        escape(&file.path),
        file.size,
        escape(&describe(&file.content))
    )
}

fn describe(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Cut(text) => format!("{text}\n… (cut)"),
        Content::Binary => "(not text)".to_owned(),
        Content::Unreadable(why) => format!("(cannot be read: {why})"),
    }
}

/// Makes text of what HTML would take for markup, in elements and in quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // HTML has no place for these, not even as references.
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}' => {
                escaped.push('\u{fffd}');
            }
            other => escaped.push(other),
        }
    }
    escaped
}

fn percent_encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping() {
        assert_eq!(escape("a<b>&\"'é\n\t"), "a&lt;b&gt;&amp;&quot;&#39;é\n\t");
        assert_eq!(escape("\u{1b}[31m\0"), "\u{fffd}[31m\u{fffd}");
        assert_eq!(percent_encode("a b/é'\"<"), "a%20b%2F%C3%A9%27%22%3C");
    }

    fn facts() -> Facts {
        let file = |path: &str, content| Shown {
            path: path.to_owned(),
            size: 5,
            content,
        };
        Facts {
            hostname: "web<1>".to_owned(),
            client: "127.0.0.1:5".parse().expect("an address"),
            uptime_ms: 12_034,
            environment: vec![("A".to_owned(), "</td><script>".to_owned())],
            root: Some("/data".to_owned()),
            files: vec![
                file("a/<b>.txt", Content::Text("x\ny\n".to_owned())),
                file("cut", Content::Cut("<!--".to_owned())),
                file("bin", Content::Binary),
            ],
        }
    }

    #[test]
    fn nothing_of_the_pod_is_markup() {
        let html = facts().html();
        for markup in ["<script>", "<b>", "<1>", "<!--"] {
            assert!(!html.contains(markup), "{markup}");
        }
        assert!(html.contains("href=\"/files/a/%3Cb%3E.txt\""));
        assert!(html.contains("&lt;/td&gt;&lt;script&gt;"));
    }

    #[test]
    fn text() {
        assert_eq!(
            facts().text(),
            "hello from web<1>\n\nhostname: web<1>\nclient: 127.0.0.1:5\nuptime: 12.034 s\n\n\
             files in /data:\n  a/<b>.txt (5 bytes)\n    x\n    y\n  cut (5 bytes)\n    <!--\n    … (cut)\n  \
             bin (5 bytes)\n    (not text)\n\nenvironment:\n  A=</td><script>\n"
        );
    }

    #[test]
    fn json() {
        let json: Value = serde_json::from_str(&facts().json()).expect("JSON");
        assert_eq!(json["hostname"], "web<1>");
        assert_eq!(json["uptimeSeconds"], 12.034);
        assert_eq!(json["files"][0]["content"], "x\ny\n");
        assert_eq!(json["files"][1]["truncated"], true);
        assert_eq!(json["files"][2]["content"], Value::Null);
        assert_eq!(json["env"]["A"], "</td><script>");
    }
}
