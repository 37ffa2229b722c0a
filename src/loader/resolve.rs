//! What the objects of a run may refer to: the run's own ConfigMaps and Secrets, then those that are recorded.

use std::cell::Cell;
use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::binding::Bindings;
use super::node::At;
use super::report::Report;
use crate::model::names::Namespace;

/// The two kinds that can be referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// What is in a ConfigMap or a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Data {
    /// A Secret's `type`.
    pub(super) kind: Option<String>,
    /// A ConfigMap's `data`, a Secret's all: what variables can be made from.
    pub(super) values: BTreeMap<String, Vec<u8>>,
    /// A ConfigMap's `binaryData`: only for files.
    pub(super) binary: BTreeMap<String, Vec<u8>>,
}

impl Data {
    /// Keys and bytes, as files show them.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let all = self.values.iter().chain(&self.binary);
        all.map(|(key, bytes)| (key.as_str(), bytes.as_slice()))
    }

    pub(super) fn file(&self, key: &str) -> Option<&[u8]> {
        let bytes = self.values.get(key).or_else(|| self.binary.get(key));
        bytes.map(Vec::as_slice)
    }

    fn keys(&self) -> String {
        let keys: Vec<String> = self
            .files()
            .take(20)
            .map(|(key, _)| format!("`{key}`"))
            .collect();
        if keys.is_empty() {
            "it is empty".to_owned()
        } else {
            format!("its keys are {}", keys.join(", "))
        }
    }
}

/// A reference's answer. What was there but had faults is already reported, and says nothing again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    Data(&'a Data),
    Faulty,
    Missing,
}

/// How much plans may copy in one run: no machine wants more, and manifests of a few KiB could ask for it.
const MAX_COPIED: usize = 256 << 20;

/// The objects that can be referred to.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Bytes that plans have copied from here.
    copied: Cell<usize>,
    objects: BTreeMap<(Kind, Namespace, String), Option<Data>>,
    /// The `imagePullSecrets` of each ServiceAccount.
    accounts: BTreeMap<(Namespace, String), Vec<String>>,
    /// What each claim is bound to.
    pub(super) claims: Bindings,
}

impl Index {
    /// Takes the recorded objects. What cannot be read is left out: a reference to it says that it is missing.
    pub(super) fn new(
        existing: &[serde_json::Value],
        claims: Bindings,
        default: &Namespace,
    ) -> Self {
        let mut index = Self {
            claims,
            ..Self::default()
        };
        for json in existing {
            index.add_account(json, default);
            let text = |pointer: &str| json.pointer(pointer).and_then(serde_json::Value::as_str);
            let data = match text("/kind") {
                Some("ConfigMap") => serde_json::from_value(json.clone())
                    .map(|map| (Kind::ConfigMap, config_map(map))),
                Some("Secret") => {
                    serde_json::from_value(json.clone()).map(|map| (Kind::Secret, secret(map)))
                }
                _ => continue,
            };
            let namespace =
                text("/metadata/namespace").and_then(|text| Namespace::parse(text).ok());
            match (data, text("/metadata/name")) {
                (Ok((kind, data)), Some(name)) => {
                    index.add(
                        kind,
                        namespace.unwrap_or_else(|| default.clone()),
                        name,
                        Some(data),
                    );
                }
                (data, name) => {
                    tracing::warn!(?name, error = ?data.err(), "a recorded object cannot be read");
                }
            }
        }
        index
    }

    /// Takes what pods have from a ServiceAccount, if that is what this is.
    pub(super) fn add_account(&mut self, json: &serde_json::Value, default: &Namespace) {
        let text = |pointer: &str| json.pointer(pointer).and_then(serde_json::Value::as_str);
        let (Some("ServiceAccount"), Some(name)) = (text("/kind"), text("/metadata/name")) else {
            return;
        };
        let namespace = text("/metadata/namespace").and_then(|text| Namespace::parse(text).ok());
        let secrets = json.get("imagePullSecrets").and_then(|all| all.as_array());
        let names = secrets.into_iter().flatten().filter_map(|secret| {
            let name = secret.get("name")?.as_str()?;
            Some(name.to_owned())
        });
        let key = (
            namespace.unwrap_or_else(|| default.clone()),
            name.to_owned(),
        );
        self.accounts.insert(key, names.collect());
    }

    /// The `imagePullSecrets` of a ServiceAccount.
    pub(super) fn account(&self, namespace: &Namespace, name: &str) -> &[String] {
        let found = self.accounts.get(&(namespace.clone(), name.to_owned()));
        found.map(Vec::as_slice).unwrap_or_default()
    }

    /// Adds an object of the run; `None` if it had faults.
    pub(super) fn add(&mut self, kind: Kind, namespace: Namespace, name: &str, data: Option<Data>) {
        self.objects
            .insert((kind, namespace, name.to_owned()), data);
    }

    pub(super) fn find(&self, kind: Kind, namespace: &Namespace, name: &str) -> Found<'_> {
        match self
            .objects
            .get(&(kind, namespace.clone(), name.to_owned()))
        {
            Some(Some(data)) => Found::Data(data),
            Some(None) => Found::Faulty,
            None => Found::Missing,
        }
    }

    /// Counts what a plan copies. Says so, and refuses, when it is too much.
    pub(super) fn may_copy(&self, bytes: &[u8], at: At<'_>, report: &Report) -> bool {
        let copied = self.copied.get().saturating_add(bytes.len());
        self.copied.set(copied);
        if copied > MAX_COPIED {
            let message = format!(
                "the pods of this run have more than {} MiB of ConfigMaps and Secrets",
                MAX_COPIED >> 20
            );
            report.error(at, message);
        }
        copied <= MAX_COPIED
    }

    /// Says what a missing object could have been meant for.
    pub(super) fn report_missing(
        &self,
        report: &Report,
        at: At<'_>,
        kind: Kind,
        namespace: &Namespace,
        name: &str,
    ) {
        let message = format!(
            "the {} `{name}` does not exist in namespace `{namespace}`",
            kind.as_str()
        );
        let elsewhere = self
            .objects
            .keys()
            .find(|(k, _, n)| *k == kind && n == name);
        let names: Vec<&str> = self
            .objects
            .keys()
            .filter(|(k, n, _)| *k == kind && n == namespace)
            .map(|(_, _, name)| name.as_str())
            .collect();
        let hint = match (elsewhere, super::decode::closest(name, &names)) {
            (_, Some(close)) => format!("did you mean `{close}`?"),
            (Some((_, other, _)), None) => format!("there is one in namespace `{other}`"),
            (None, None) => format!(
                "add the {} to the files, or set `optional: true`",
                kind.as_str()
            ),
        };
        report.error_hint(at, message, hint);
    }

    /// Says that an object has no such key.
    pub(super) fn report_missing_key(
        report: &Report,
        at: At<'_>,
        kind: Kind,
        name: &str,
        key: &str,
        data: &Data,
    ) {
        let message = format!("the {} `{name}` has no key `{key}`", kind.as_str());
        report.error_hint(at, message, data.keys());
    }
}

/// A ConfigMap's content.
pub(super) fn config_map(object: ConfigMap) -> Data {
    let text = object.data.unwrap_or_default().into_iter();
    let binary = object.binary_data.unwrap_or_default().into_iter();
    Data {
        kind: None,
        values: text.map(|(key, value)| (key, value.into_bytes())).collect(),
        binary: binary.map(|(key, value)| (key, value.0)).collect(),
    }
}

/// A Secret's content: `stringData` wins over `data`.
pub(super) fn secret(object: Secret) -> Data {
    let data = object.data.unwrap_or_default().into_iter();
    let text = object.string_data.unwrap_or_default().into_iter();
    Data {
        kind: object.type_,
        values: data
            .map(|(key, value)| (key, value.0))
            .chain(text.map(|(key, value)| (key, value.into_bytes())))
            .collect(),
        binary: BTreeMap::new(),
    }
}

/// Moves a Secret's `stringData` into its `data`, as the API server does.
pub(super) fn merge_string_data(json: &mut serde_json::Value) {
    let Some(object) = json.as_object_mut() else {
        return;
    };
    let Some(serde_json::Value::Object(texts)) = object.shift_remove("stringData") else {
        return;
    };
    let data = object
        .entry("data")
        .or_insert_with(|| serde_json::json!({}));
    if let Some(data) = data.as_object_mut() {
        for (key, text) in texts {
            let encoded = BASE64_STANDARD.encode(text.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }
}
