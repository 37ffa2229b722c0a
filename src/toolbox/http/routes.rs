//! What each path answers.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Server;
use super::page::{self, Facts};
use super::request::Request;
use super::response::{HTML, JSON, Response, TEXT};
use super::root::Found;
use crate::toolbox::{fetch, identity};

/// What is done about a request.
#[derive(Debug)]
pub(super) enum Answer {
    Response(Response),
    /// The process ends with this code, after an answer.
    Exit(u8),
    /// There is no answer, ever.
    Hang,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

/// The paths, for people.
pub(super) const PATHS: &[(&str, &str)] = &[
    ("/", "this page"),
    ("/env", "the environment"),
    ("/hostname", "the host name"),
    ("/client", "your address"),
    ("/files/", "the files"),
    ("/upstream", "the host name, then what each --upstream says"),
    ("/echo", "your request"),
    ("/healthz", "200, or 500 after /fail"),
    ("/fail", "makes /healthz answer 500"),
    ("/ok", "makes /healthz answer 200 again"),
    ("/ready", "200, or 503 after /ready/no and with --unready"),
    ("/ready/no", "makes /ready answer 503"),
    ("/ready/yes", "makes /ready answer 200"),
    ("/status/CODE", "answers with that status"),
    ("/redirect/URL", "sends you there, or to that path"),
    ("/slow/MS", "answers after that many milliseconds"),
    ("/hang", "never answers"),
    ("/exit/CODE", "ends the process"),
];

/// How a client wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Html,
    Json,
}

/// Browsers ask for HTML, programs for JSON, curl for anything.
fn format(request: &Request) -> Format {
    let accept = request.header("accept").unwrap_or_default();
    let kinds = accept
        .split(',')
        .map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let mut formats = kinds.filter_map(|kind| match kind {
        "text/html" | "application/xhtml+xml" => Some(Format::Html),
        "application/json" => Some(Format::Json),
        "text/plain" => Some(Format::Text),
        _ => None,
    });
    formats.next().unwrap_or(Format::Text)
}

pub(super) fn answer(request: &Request, client: SocketAddr, server: &Server) -> Answer {
    let Some(path) = request.path() else {
        return Response::text(400, "this is no path\n").into();
    };
    let (first, rest) = split(&path);
    if first == "echo" && rest.is_none() {
        return echo(request).into();
    }
    if !matches!(&*request.method, "GET" | "HEAD") {
        return Response::only("GET, HEAD").into();
    }
    match (first, rest) {
        ("", None) => overview(request, client, server).into(),
        ("env", None) => environment(format(request)).into(),
        ("hostname", None) => Response::text(200, &format!("{}\n", page::hostname())).into(),
        ("client", None) => Response::text(200, &format!("{client}\n")).into(),
        ("files", rest) => file(rest.unwrap_or_default(), server).into(),
        ("upstream", None) => upstream(server).into(),
        ("healthz", None) => health(server).into(),
        ("ready", None) => readiness(server).into(),
        ("ready", Some("no")) => set_readiness(server, false).into(),
        ("ready", Some("yes")) => set_readiness(server, true).into(),
        ("redirect", Some(to)) => redirect(to).into(),
        ("fail", None) => set_health(server, false).into(),
        ("ok", None) => set_health(server, true).into(),
        ("hang", None) => Answer::Hang,
        ("exit", Some(code)) => {
            number(code).map_or_else(|| wrong("/exit/CODE, 0 to 255"), Answer::Exit)
        }
        ("slow", Some(time)) => {
            number(time).map_or_else(|| wrong("/slow/MS"), |ms| slow(ms).into())
        }
        ("status", Some(code)) => match number(code) {
            Some(code @ 200..=599) => Response::text(code, &format!("{code}\n")).into(),
            Some(_) | None => wrong("/status/CODE, 200 to 599"),
        },
        _ => not_found().into(),
    }
}

/// The first part of a path and what follows it.
fn split(path: &str) -> (&str, Option<&str>) {
    let path = path.strip_prefix('/').unwrap_or(path);
    match path.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse()
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn wrong(usage: &str) -> Answer {
    Response::text(400, &format!("{usage}\n")).into()
}

fn not_found() -> Response {
    let mut text = "there is nothing here; try\n".to_owned();
    for (path, about) in PATHS {
        text.push_str(&format!("  {path:<14} {about}\n"));
    }
    Response::text(404, &text)
}

fn overview(request: &Request, client: SocketAddr, server: &Server) -> Response {
    let facts = Facts::collect(client, server);
    match format(request) {
        Format::Text => Response::new(200, TEXT, facts.text()),
        Format::Html => Response::new(200, HTML, facts.html()),
        Format::Json => Response::new(200, JSON, facts.json()),
    }
}

fn environment(format: Format) -> Response {
    let environment = identity::environment();
    match format {
        Format::Json => Response::new(
            200,
            JSON,
            page::environment_json(&environment).to_string() + "\n",
        ),
        Format::Text | Format::Html => {
            let line = |(name, value): &(String, String)| format!("{name}={value}\n");
            Response::text(200, &environment.iter().map(line).collect::<String>())
        }
    }
}

fn file(path: &str, server: &Server) -> Response {
    let Some(root) = &server.root else {
        return Response::text(404, "no files are shown: there was no --root\n");
    };
    match root.find(path) {
        Ok(Found::File(file, len)) => Response::file(content_type(path), file, len),
        Ok(Found::Folder(names)) => Response::text(
            200,
            &names
                .iter()
                .map(|name| format!("{name}\n"))
                .collect::<String>(),
        ),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Response::text(404, "there is no such file\n")
        }
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            Response::text(404, "there is no such file\n")
        }
        // Among them paths that leave the root.
        Err(e) => Response::text(403, &format!("{e}\n")),
    }
}

/// What the servers behind this one say; 502 unless all of them are fine.
fn upstream(server: &Server) -> Response {
    let mut status = 200;
    let mut text = format!("{}\n", page::hostname());
    for url in &server.upstreams {
        let said = match fetch::fetch(url, fetch::PATIENCE) {
            Ok(page) => {
                if !page.is_good() {
                    status = 502;
                }
                format!("{}: {}", page.status, String::from_utf8_lossy(&page.body))
            }
            Err(error) => {
                status = 502;
                error.to_string()
            }
        };
        let said = said.trim_end().replace('\n', "\n  ");
        text.push_str(&format!("  {url} {said}\n"));
    }
    Response::text(status, &text)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" | "htm" => HTML,
        "json" => JSON,
        "css" => "text/css",
        "js" => "text/javascript",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        _ => TEXT,
    }
}

fn health(server: &Server) -> Response {
    if server.healthy.load(Ordering::Relaxed) {
        Response::text(200, "ok\n")
    } else {
        Response::text(500, "failing, until /ok\n")
    }
}

fn set_health(server: &Server, healthy: bool) -> Response {
    server.healthy.store(healthy, Ordering::Relaxed);
    Response::text(
        200,
        if healthy {
            "/healthz is ok\n"
        } else {
            "/healthz fails\n"
        },
    )
}

fn readiness(server: &Server) -> Response {
    if server.ready.load(Ordering::Relaxed) {
        Response::text(200, "ready\n")
    } else {
        Response::text(503, "not ready, until /ready/yes\n")
    }
}

fn set_readiness(server: &Server, ready: bool) -> Response {
    server.ready.store(ready, Ordering::Relaxed);
    Response::text(
        200,
        if ready {
            "/ready answers 200\n"
        } else {
            "/ready answers 503\n"
        },
    )
}

fn redirect(to: &str) -> Response {
    // A line of its own would be a header of its own.
    if to.chars().any(char::is_control) {
        return Response::text(400, "/redirect/URL\n");
    }
    let is_absolute = to.starts_with("http://") || to.starts_with("https://");
    Response::redirect(if is_absolute {
        to.to_owned()
    } else {
        format!("/{to}")
    })
}

fn slow(ms: u64) -> Response {
    const LONGEST: u64 = 3_600_000;
    std::thread::sleep(Duration::from_millis(ms.min(LONGEST)));
    Response::text(200, &format!("{ms} ms\n"))
}

fn echo(request: &Request) -> Response {
    let mut echo = format!("{} {}\n", request.method, request.target);
    for (name, value) in &request.headers {
        echo.push_str(&format!("{name}: {value}\n"));
    }
    echo.push('\n');
    let mut echo = echo.into_bytes();
    echo.extend(&request.body);
    Response::new(200, TEXT, echo)
}
