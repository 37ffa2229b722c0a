//! Trees to Kubernetes' types, strictly.
//!
//! k8s-openapi's types say which fields they know when they ask for a struct, which is all that is needed to find
//! unknown ones. A value of the wrong type is reported and read as if it were zero, so that one pass finds all
//! faults. What was read after a fault must not be played.

use std::fmt;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Unexpected, Visitor};

use super::node::{At, Entry, Node, Value};
use super::report::Report;
use crate::model::diagnostic::Diagnostic;
use crate::model::quantity::Quantity;

/// Reads a tree as a `T`. `None` if there was a fault, which is in the report then.
pub(super) fn decode<'a, T: Deserialize<'a>>(at: At<'a>, report: &'a Report) -> Option<T> {
    let before = report.errors();
    let reader = Reader {
        at,
        report,
        name: Name::Root,
    };
    let decoded = T::deserialize(reader);
    match decoded {
        Ok(value) if report.errors() == before => Some(value),
        Ok(_) => None,
        Err(error) => {
            report.error(at, error.0);
            None
        }
    }
}

/// What a value is called in messages.
#[derive(Clone, Copy)]
enum Name<'a> {
    Root,
    Field(&'a str),
    Item(&'a str, usize),
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the document"),
            Self::Field(name) => write!(f, "`{name}`"),
            Self::Item(name, index) => write!(f, "`{name}[{index}]`"),
        }
    }
}

/// What a foreign visitor has to say; all faults that are foreseen are reported in place instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Error(String);

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Reader<'a> {
    at: At<'a>,
    report: &'a Report,
    name: Name<'a>,
}

impl<'a> Reader<'a> {
    fn value(&self) -> &'a Value {
        self.at.node.map_or(&Value::Null, |node| &node.value)
    }

    fn wrong(&self, wanted: &str) {
        let value = self.value();
        let message = format!("{} must be {wanted}, is {value}", self.name);
        let scalar = matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
        let mut fault = Diagnostic::error(message).at(self.at.place());
        if scalar && wanted == "a string" {
            let place = fault.place.as_ref();
            let written: Option<String> = place.map(|place| {
                place
                    .text
                    .chars()
                    .skip(place.column - 1)
                    .take(place.width)
                    .collect()
            });
            let written = written.filter(|text| !text.is_empty() && !text.contains(['"', ' ']));
            fault = match written {
                Some(text) => fault.hint(format!("quote it: `\"{text}\"`")),
                None => fault.hint("quote it"),
            };
        }
        self.report.push(fault);
    }

    fn integer(&self, min: i128, max: i128) -> i128 {
        let value = match self.value() {
            Value::Null => return 0,
            Value::Int(value) => Some(*value),
            // JSON does not tell 1.0 from 1.
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e18 => {
                Some(*value as i128)
            }
            _ => None,
        };
        match value {
            Some(value) if (min..=max).contains(&value) => value,
            Some(value) => {
                let message = format!("{} must be between {min} and {max}, is {value}", self.name);
                self.report.error(self.at, message);
                0
            }
            None => {
                self.wrong("an integer");
                0
            }
        }
    }

    fn float(&self) -> f64 {
        match self.value() {
            Value::Null => 0.0,
            Value::Int(value) => *value as f64,
            Value::Float(value) => *value,
            _ => {
                self.wrong("a number");
                0.0
            }
        }
    }

    fn text(&self) -> &'a str {
        match self.value() {
            Value::Null => "",
            Value::String(text) => text,
            _ => {
                self.wrong("a string");
                ""
            }
        }
    }

    fn items(&self) -> &'a [Node] {
        match self.value() {
            Value::Null => &[],
            Value::Seq(items) => items,
            _ => {
                self.wrong("a list");
                &[]
            }
        }
    }

    fn entries(&self) -> &'a [Entry] {
        match self.value() {
            Value::Null => &[],
            Value::Map(entries) => entries,
            _ => {
                self.wrong("a mapping");
                &[]
            }
        }
    }

    fn quantity(&self) -> String {
        let text = match self.value() {
            Value::Null => return "0".to_owned(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::String(text) => text.as_ref().to_owned(),
            _ => {
                self.wrong("a quantity");
                return "0".to_owned();
            }
        };
        if let Err(error) = Quantity::parse(&text) {
            let message = format!(
                "{} is `{text}`, which is not a quantity: it {error}",
                self.name
            );
            self.report.error(self.at, message);
        }
        text
    }

    fn time(&self) -> &'a str {
        let text = self.text();
        if text.parse::<jiff::Timestamp>().is_ok() {
            return text;
        }
        if !matches!(self.value(), Value::Null) {
            let message = format!(
                "{} must be a time such as `2006-01-02T15:04:05Z`",
                self.name
            );
            self.report.error(self.at, message);
        }
        "1970-01-01T00:00:00Z"
    }

    /// Base64 as Go reads it: line ends within do not matter.
    fn base64(&self) -> String {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        let text: String = self
            .text()
            .chars()
            .filter(|c| !matches!(c, '\n' | '\r'))
            .collect();
        if let Err(error) = BASE64_STANDARD.decode(&text) {
            let fault = Diagnostic::error(format!("{} is not base64", self.name));
            let error = error.to_string().to_lowercase();
            let hint = format!(
                "{}; `stringData` of a Secret takes plain text",
                error.trim_end_matches('.')
            );
            self.report.push(fault.at(self.at.place()).hint(hint));
            return String::new();
        }
        text
    }

    fn map(self, fields: Option<&'static [&'static str]>) -> MapAccess<'a> {
        MapAccess {
            reader: self,
            entries: self.entries().iter(),
            fields,
            value: None,
        }
    }

    fn seq(self) -> SeqAccess<'a> {
        SeqAccess {
            reader: self,
            items: self.items().iter(),
            index: 0,
        }
    }
}

/// What a visitor expects, in its own words: the only way to know some types.
struct Expected<'v, V>(&'v V);

impl<'de, V: Visitor<'de>> fmt::Display for Expected<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ident)*) => {$(
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
            let value = self.integer(i128::from($type::MIN), i128::from($type::MAX));
            visitor.$visit($type::try_from(value).unwrap_or_default())
        }
    )*};
}

impl<'a> Deserializer<'a> for Reader<'a> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        if Expected(&visitor).to_string() == "IntOrString" {
            return match self.value() {
                Value::String(text) => visitor.visit_str(text),
                Value::Int(_) | Value::Null => {
                    visitor.visit_i64(self.integer(i32::MIN.into(), i32::MAX.into()) as i64)
                }
                _ => {
                    self.wrong("an integer or a string");
                    visitor.visit_i64(0)
                }
            };
        }
        match self.value() {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_i64(value),
                (_, Ok(value)) => visitor.visit_u64(value),
                _ => Err(de::Error::invalid_value(
                    Unexpected::Other("a large number"),
                    &visitor,
                )),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_str(text),
            Value::Seq(_) => visitor.visit_seq(self.seq()),
            Value::Map(_) => visitor.visit_map(self.map(None)),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8
        deserialize_i16 visit_i16 i16
        deserialize_i32 visit_i32 i32
        deserialize_i64 visit_i64 i64
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value() {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => {
                self.wrong("a boolean");
                visitor.visit_bool(false)
            }
        }
    }

    fn deserialize_f32<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(self.float())
    }

    fn deserialize_f64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(self.float())
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text())
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text())
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.at.node.is_none_or(Node::is_null) {
            visitor.visit_none()
        } else if Expected(&visitor).to_string() == "a base64-encoded string" {
            visitor.visit_str(&self.base64())
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match name {
            "Quantity" => visitor.visit_string(self.quantity()),
            "Time" | "MicroTime" => {
                let text: StrDeserializer<'a, Error> = self.time().into_deserializer();
                visitor.visit_newtype_struct(text)
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(self.seq())
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self.map(None))
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(self.map(Some(fields)))
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'a>>
        char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

struct MapAccess<'a> {
    reader: Reader<'a>,
    entries: std::slice::Iter<'a, Entry>,
    /// The only keys that are allowed.
    fields: Option<&'static [&'static str]>,
    value: Option<&'a Entry>,
}

impl<'a> de::MapAccess<'a> for MapAccess<'a> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        for entry in self.entries.by_ref() {
            if let Some(fields) = self.fields.filter(|fields| !fields.contains(&&*entry.key)) {
                unknown_field(self.reader, entry, fields);
                continue;
            }
            self.value = Some(entry);
            let key: StrDeserializer<'_, Error> = entry.key.as_ref().into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let entry = self
            .value
            .take()
            .ok_or_else(|| Error("a value without its key".to_owned()))?;
        seed.deserialize(Reader {
            at: self.reader.at.entry(entry),
            name: Name::Field(&entry.key),
            ..self.reader
        })
    }
}

struct SeqAccess<'a> {
    reader: Reader<'a>,
    items: std::slice::Iter<'a, Node>,
    index: usize,
}

impl<'a> de::SeqAccess<'a> for SeqAccess<'a> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.items.next() else {
            return Ok(None);
        };
        let name = match self.reader.name {
            Name::Field(name) | Name::Item(name, _) => name,
            Name::Root => "items",
        };
        let reader = Reader {
            at: self.reader.at.item(node),
            name: Name::Item(name, self.index),
            ..self.reader
        };
        self.index += 1;
        seed.deserialize(reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

fn unknown_field(reader: Reader<'_>, entry: &Entry, fields: &[&str]) {
    let place = reader.at.file.place(entry.key_span);
    let within = match reader.name {
        Name::Root => String::new(),
        name => format!(" in {name}"),
    };
    let fault = Diagnostic::error(format!("unknown field `{}`{within}", entry.key)).at(place);
    reader.report.push(match closest(&entry.key, fields) {
        Some(field) => fault.hint(format!("did you mean `{field}`?")),
        None => fault,
    });
}

/// The candidate that somebody may have meant.
pub(super) fn closest<'c>(text: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let text: String = text.chars().take(64).collect::<String>().to_lowercase();
    let allowed = (text.chars().count() / 3).clamp(1, 3);
    candidates
        .iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&text, &candidate.to_lowercase()),
                *candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}
