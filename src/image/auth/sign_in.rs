//! Signs in at a registry: asks what it wants, and gets it.
//!
//! ```text
//! GET /v2/ ─ 401 Basic  → the user's name and password, tried at once
//!          ─ 401 Bearer → the token server: GET with Basic, or POST with the identity token → a token and its end
//!          ─ no 401     → nothing
//!          ─ anything   → the registry's own token, if the user has one
//! ```
//!
//! A password is not given to a token server without TLS.

use std::time::{Duration, Instant};

use http_auth::parser::ChallengeParser;
use reqwest::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::{Credentials, Login};
use crate::image::proxy::Proxies;
use crate::image::registries::Certificates;
use crate::image::registry::{Fault, Http, Server, fault, refusal, retry_after};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a token is good whose server does not say, and the least that is believed: it is tried for so long at least.
const TOKEN_LIFE: u64 = 60;
/// So much before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(5);
/// How much a token server may say.
const MOST_BYTES: usize = 1 << 20;

/// How a registry is spoken to.
#[derive(Clone, Debug)]
pub(in crate::image) struct Transport {
    pub(in crate::image) scheme: Scheme,
    /// Whether it has to prove who it is; else any certificate is taken.
    pub(in crate::image) verify: bool,
    /// Who may vouch for it, beside those that the machine trusts.
    pub(in crate::image) certificates: Certificates,
    pub(in crate::image) proxies: Proxies,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) enum Scheme {
    Https,
    Http,
}

impl Scheme {
    pub(in crate::image) fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// One registry, and who asks.
#[derive(Debug)]
pub(in crate::image) struct SignIn {
    http: Http,
    /// As messages name it.
    registry: String,
    /// `https://HOST/`.
    base: Url,
    login: Option<Login>,
    transport: Transport,
}

/// What goes with every request.
#[derive(Clone)]
pub(in crate::image) enum Grant {
    Nothing,
    Basic {
        username: String,
        password: String,
    },
    Bearer {
        token: String,
        until: Option<Instant>,
    },
}

/// What a registry wants.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl SignIn {
    /// For a registry whose requests go to `host`, which may have another name.
    pub(in crate::image) fn new(
        registry: &str,
        host: &str,
        login: Option<Login>,
        transport: Transport,
    ) -> Result<Self, Fault> {
        let registry = registry.to_owned();
        let base = Url::parse(&format!("{}://{host}/", transport.scheme.as_str()))
            .map_err(|_| unusable(&registry, "its name makes no address"))?;
        transport
            .proxies
            .check(&base)
            .map_err(Fault::ProxyVariable)?;
        Ok(Self {
            http: Http::new(&registry, base.clone(), &transport)?,
            registry,
            base,
            login,
            transport,
        })
    }

    /// The connections that it uses, for what is asked with its grant.
    pub(in crate::image) fn http(&self) -> &Http {
        &self.http
    }

    /// As whom it is asked, in words.
    pub(in crate::image) fn asked_as(&self) -> Option<String> {
        self.login.as_ref().map(ToString::to_string)
    }

    /// What goes with a request, which nothing shows.
    pub(in crate::image) fn header(&self, text: &str) -> Result<HeaderValue, Fault> {
        let header = HeaderValue::from_str(text);
        let mut header = header.map_err(|_| unusable(&self.registry, "its token is no text"))?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// What the registry gives for the credentials. Without scopes it is only asked whether they are right.
    pub(in crate::image) async fn sign_in(&self, scopes: &[String]) -> Result<Grant, Fault> {
        // Asked in any case: the answer says whether the registry speaks TLS.
        let answer = self.send(self.http.client().get(self.versions())).await?;
        if let Some(Credentials::Registry { token }) = self.credentials() {
            let (token, until) = (token.clone(), None);
            return Ok(Grant::Bearer { token, until });
        }
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(Grant::Nothing);
        }
        match challenge(&answer) {
            None => Ok(Grant::Nothing),
            Some(Challenge::Basic) => self.basic().await,
            Some(Challenge::Bearer { realm, service }) => {
                self.bearer(&realm, service.as_deref(), scopes).await
            }
        }
    }

    /// Whether a grant opens the registry: the question of `login`.
    pub(super) async fn check(&self, grant: &Grant) -> Result<(), Fault> {
        let request = self.http.client().get(self.versions());
        let request = match grant {
            // Basic was tried when it was granted.
            Grant::Nothing | Grant::Basic { .. } => return Ok(()),
            Grant::Bearer { token, .. } => request.bearer_auth(token),
        };
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => Err(self.refused(answer).await),
            _ => Ok(()),
        }
    }

    fn credentials(&self) -> Option<&Credentials> {
        self.login.as_ref().map(|login| &login.credentials)
    }

    fn versions(&self) -> Url {
        let mut url = self.base.clone();
        url.set_path("/v2/");
        url
    }

    async fn basic(&self) -> Result<Grant, Fault> {
        let Some(Credentials::Password { username, password }) = self.credentials() else {
            // What is asked for then says whether that does.
            return Ok(Grant::Nothing);
        };
        let request = self
            .http
            .client()
            .get(self.versions())
            .basic_auth(username, Some(password));
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused(answer).await),
            status if is_trouble(status) => Err(self.refused(answer).await),
            _ => Ok(Grant::Basic {
                username: username.clone(),
                password: password.clone(),
            }),
        }
    }

    async fn bearer(
        &self,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
    ) -> Result<Grant, Fault> {
        let Server { mut url, client } = self.http.token_server(&self.registry, realm)?;
        let is_plain = url.scheme() == "http" && self.transport.scheme == Scheme::Https;
        if is_plain && self.login.is_some() && self.transport.verify {
            let registry = self.registry.clone();
            let server = url.host_str().unwrap_or_default().to_owned();
            return Err(Fault::PlainTokens { registry, server });
        }
        let service = service.map(|service| ("service", service));
        let request = match self.credentials() {
            Some(Credentials::Identity { token }) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("client_id", "kplay");
                form.append_pair("refresh_token", token);
                form.extend_pairs(service);
                if !scopes.is_empty() {
                    // OAuth has one list, and the other way one parameter for each.
                    form.append_pair("scope", &scopes.join(" "));
                }
                client
                    .post(url)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.finish())
            }
            other => {
                let password = match other {
                    Some(Credentials::Password { username, password }) => {
                        url.query_pairs_mut().append_pair("account", username);
                        Some((username, password))
                    }
                    Some(Credentials::Identity { .. } | Credentials::Registry { .. }) | None => {
                        None
                    }
                };
                let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
                url.query_pairs_mut()
                    .extend_pairs(service)
                    .extend_pairs(scopes);
                let request = client.get(url);
                match password {
                    Some((username, password)) => request.basic_auth(username, Some(password)),
                    None => request,
                }
            }
        };
        let begun = Instant::now();
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::OK => self.token(answer, begun).await,
            _ => Err(self.refused(answer).await),
        }
    }

    async fn token(&self, answer: Response, begun: Instant) -> Result<Grant, Fault> {
        let text = self.text(answer).await?;
        // No message has the answer in it: a part of it may be a token.
        let fault = || unusable(&self.registry, "its token server gives no token");
        let token: Token = serde_json::from_str(&text).map_err(|_| fault())?;
        let life = token.expires_in.unwrap_or_default().max(TOKEN_LIFE);
        let mut given = [token.token, token.access_token].into_iter().flatten();
        let token = given.find(|token| !token.is_empty());
        // One that ends in a time that no clock has never does.
        let until = begun.checked_add(Duration::from_secs(life).saturating_sub(MARGIN));
        Ok(Grant::Bearer {
            token: token.ok_or_else(fault)?,
            until,
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Fault> {
        let answer = request.timeout(ANSWER).send().await;
        answer.map_err(|error| self.broken(error))
    }

    fn broken(&self, error: reqwest::Error) -> Fault {
        let fault = fault(error, &self.registry);
        let proxy = self.transport.proxies.of(&self.base);
        fault.through(proxy, &self.registry)
    }

    /// What an answer says that is none.
    async fn refused(&self, answer: Response) -> Fault {
        let (status, wait) = (answer.status(), retry_after(answer.headers()));
        let text = self.text(answer).await.unwrap_or_default();
        // Whatever else a token server says instead of a token means that it gives none.
        let status = match is_trouble(status) {
            true => status,
            false => StatusCode::UNAUTHORIZED,
        };
        let mut fault = refusal(status, wait, &text, &self.registry, "a token");
        if let Fault::Unauthorized { asked_as, .. } = &mut fault {
            *asked_as = self.asked_as();
        }
        fault
    }

    async fn text(&self, mut answer: Response) -> Result<String, Fault> {
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.broken(error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MOST_BYTES {
                return Err(unusable(&self.registry, "an answer of it is too long"));
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn is_trouble(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn unusable(registry: &str, why: &'static str) -> Fault {
    let registry = registry.to_owned();
    Fault::Answer { registry, why }
}

/// What an answer asks for: a token rather than a password.
fn challenge(answer: &Response) -> Option<Challenge> {
    let headers = answer.headers().get_all(WWW_AUTHENTICATE);
    let texts: Vec<&str> = headers
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    wanted(&texts)
}

fn wanted(headers: &[&str]) -> Option<Challenge> {
    let all = headers.iter().flat_map(|text| ChallengeParser::new(text));
    let mut basic = None;
    for challenge in all.filter_map(Result::ok) {
        if challenge.scheme.eq_ignore_ascii_case("Bearer") {
            let parameter = |name: &str| {
                let mut all = challenge.params.iter();
                let (_, value) = all.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                Some(value.to_unescaped())
            };
            if let Some(realm) = parameter("realm") {
                let service = parameter("service");
                return Some(Challenge::Bearer { realm, service });
            }
        } else if challenge.scheme.eq_ignore_ascii_case("Basic") {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

/// What is wanted, whatever it is.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(headers: &[&str]) {
    if let Some(Challenge::Bearer { realm, .. }) = wanted(headers) {
        let length: usize = headers.iter().map(|header| header.len()).sum();
        assert!(realm.len() <= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_preferred_wherever_it_is_offered() {
        let check = |headers: &[&str], expected: Option<Challenge>| {
            assert_eq!(wanted(headers), expected, "{headers:?}");
        };
        let bearer = || {
            Some(Challenge::Bearer {
                realm: "https://auth.example.com/token".into(),
                service: Some("a \"b\"".into()),
            })
        };
        let text = r#"Bearer realm="https://auth.example.com/token",service="a \"b\"""#;
        check(&[], None);
        check(&["Negotiate"], None);
        check(&["Basic realm=\"x\""], Some(Challenge::Basic));
        check(&[text], bearer());
        check(&["Basic realm=\"x\"", text], bearer());
        check(&[&format!("Basic realm=\"x\", {text}")], bearer());
        check(&["bEARER service=\"x\""], None);
        check(&["Bearer realm=\"\u{1}", "\"\"\""], None);
    }
}
