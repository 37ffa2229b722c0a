//! Whom the registry lets in, and the tokens that it gives.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;

use super::{State, answer};

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super::super) enum Access {
    Anybody,
    /// `user` with `secret`.
    Basic,
    /// The same, by a token from its own token server; or the identity token `long-lived`.
    Bearer,
    /// As with `Bearer`, but a token is good for six requests.
    ShortTokens,
    /// As with `Bearer`, but a token is good for the repositories only that it was asked for.
    Scopes,
}

/// For how many requests a short token is good.
const SHORT: usize = 6;

impl State {
    /// The answer to who may not have more than that.
    pub(super) fn refuse(
        &self,
        path: &str,
        authorization: &str,
        body: &str,
        own: &str,
    ) -> Option<String> {
        let basic = format!("Basic {}", BASE64.encode("user:secret"));
        let refusal = |challenge: &str| {
            let body =
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            answer(401, &format!("WWW-Authenticate: {challenge}\r\n"), body)
        };
        match self.access {
            Access::Anybody => None,
            Access::Basic if authorization == basic => None,
            Access::Basic => Some(refusal("Basic realm=\"test\"")),
            Access::Bearer | Access::ShortTokens | Access::Scopes if path.starts_with("/token") => {
                let is_known = authorization == basic
                    || (body.contains("grant_type=refresh_token")
                        && body.contains("refresh_token=long-lived"));
                Some(if is_known {
                    let token = self.new_token(path);
                    answer(
                        200,
                        "",
                        &format!(r#"{{"access_token":"{token}","expires_in":1}}"#),
                    )
                } else {
                    answer(
                        401,
                        "",
                        r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#,
                    )
                })
            }
            Access::Bearer if authorization == "Bearer sesame" => None,
            Access::ShortTokens if self.use_token(authorization) => None,
            Access::Scopes if is_in_scope(path, authorization) => None,
            Access::Bearer | Access::ShortTokens | Access::Scopes => Some(refusal(&format!(
                "Bearer realm=\"{own}/token\",service=\"test\""
            ))),
        }
    }

    fn new_token(&self, path: &str) -> String {
        match self.access {
            Access::Scopes => {
                let scopes: Vec<String> = parameters(path, "scope").collect();
                return BASE64.encode(scopes.join(" "));
            }
            Access::ShortTokens => {}
            Access::Anybody | Access::Basic | Access::Bearer => return "sesame".to_owned(),
        }
        let mut tokens = self.tokens.lock().expect("a lock");
        *tokens = (tokens.0 + 1, 0);
        format!("short-{}", tokens.0)
    }

    fn use_token(&self, authorization: &str) -> bool {
        let mut tokens = self.tokens.lock().expect("a lock");
        let is_last = authorization == format!("Bearer short-{}", tokens.0);
        let is_good = is_last && tokens.1 < SHORT;
        tokens.1 += usize::from(is_good);
        is_good
    }
}

/// The values of a parameter of an address.
fn parameters(path: &str, name: &str) -> impl Iterator<Item = String> {
    let url = reqwest::Url::parse(&format!("http://x{path}")).expect("an address");
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    let pairs = pairs.into_iter().filter(move |(key, _)| key == name);
    pairs.map(|(_, value)| value)
}

/// Whether a token is good for all repositories that a request is about.
fn is_in_scope(path: &str, authorization: &str) -> bool {
    let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
    let token = BASE64.decode(token).unwrap_or_default();
    let scopes = String::from_utf8_lossy(&token).into_owned();
    let has = |repository: &str, actions: &str| {
        let wanted = format!("repository:{repository}:{actions}");
        scopes.split(' ').any(|scope| scope.starts_with(&wanted))
    };
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    let mut kinds = ["/blobs/", "/manifests/"].iter();
    let own = kinds.find_map(|kind| rest.split_once(kind));
    !scopes.is_empty()
        && own.is_none_or(|(repository, _)| has(repository, "pull"))
        && parameters(path, "from").all(|from| has(&from, "pull"))
}
