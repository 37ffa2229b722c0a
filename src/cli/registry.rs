//! How registries are asked: the flags that commands share, and what the environment says.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::image::auth::Places;
use crate::image::containers::{self, OtherStores};
use crate::image::registries::{self, RegistriesConf};
use crate::image::{
    Credentials, Keychain, Platform, Proxies, PullOptions, RETRY_WAITS, SILENCE, Slots, TlsVerify,
};
use crate::manager::apply::PullWays;
use crate::sys::identity;

/// Whether registries have to prove who they are.
#[derive(Debug, Args)]
pub(crate) struct TlsArgs {
    /// Let registries prove who they are, whatever registries.conf says; `false` also takes http
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    tls_verify: Option<bool>,
    /// Trust the certificates in this folder, instead of those in certs.d
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
}

impl TlsArgs {
    pub(crate) fn verify(&self) -> TlsVerify {
        match self.tls_verify {
            None => TlsVerify::Configured,
            Some(true) => TlsVerify::On,
            Some(false) => TlsVerify::Off,
        }
    }

    /// What the machine says about registries.
    pub(crate) fn registries(&self) -> RegistriesConf {
        RegistriesConf::new(registries::Places {
            cert_dir: self.cert_dir.clone(),
            ..registry_places()
        })
    }
}

/// Where credentials are.
#[derive(Debug, Args)]
pub(crate) struct AuthfileArgs {
    /// Look for credentials in this file only (also REGISTRY_AUTH_FILE)
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

/// What says where configuration, credentials, helpers, authorities and proxies are.
const VARIABLES: &[&str] = &[
    "PATH",
    "HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "CONTAINERS_REGISTRIES_CONF",
    "REGISTRIES_CONFIG_PATH",
    "REGISTRY_AUTH_FILE",
    "DOCKER_CONFIG",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

impl AuthfileArgs {
    /// As `--authfile` says.
    pub(crate) fn at(authfile: Option<PathBuf>) -> Self {
        Self { authfile }
    }

    /// For pulls that a pod wants later, when this command and its environment are gone.
    pub(crate) fn ways(&self) -> PullWays {
        let authfile = self.authfile.as_deref();
        let pair = |name: &&str| Some(format!("{name}={}", std::env::var(name).ok()?));
        PullWays {
            // What is no absolute path then either is looked for from here.
            authfile: authfile
                .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into())),
            environment: VARIABLES.iter().filter_map(pair).collect(),
        }
    }

    pub(crate) fn places(&self) -> Places {
        let variable = |name: &str| std::env::var_os(name);
        Places::new(self.authfile.as_deref(), identity::uid(), variable)
    }

    /// How to pull with the credentials that are there, or with others that were given.
    pub(crate) fn pull_options(
        &self,
        given: Option<Credentials>,
        tls_verify: TlsVerify,
        registries: Arc<RegistriesConf>,
        platform: Option<Platform>,
    ) -> PullOptions {
        PullOptions {
            platform: platform.unwrap_or_else(Platform::host),
            tls_verify,
            registries,
            keychain: Keychain {
                given,
                secrets: Vec::new(),
                places: self.places(),
            },
            proxies: proxies(),
            waits: RETRY_WAITS,
            silence: SILENCE,
            slots: Slots::new(Slots::USUAL),
        }
    }
}

/// What is not shown when arguments are.
#[derive(Clone)]
pub(crate) struct Hidden(pub(crate) String);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// Where the machine's configuration of registries is.
pub(crate) fn registry_places() -> registries::Places {
    registries::Places::of_process(identity::is_root())
}

/// Where other engines keep images.
pub(crate) fn other_stores() -> OtherStores {
    OtherStores::new(containers::Places::of_process(identity::uid()))
}

/// The proxies of the environment.
pub(crate) fn proxies() -> Proxies {
    Proxies::new(|name| std::env::var(name).ok())
}
