//! Which fields Kubernetes' types have, and of which type they are: a deserializer that is asked for a type and notes
//! what the type asks it for. For tests only.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, Error};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

/// By a type's name and a field's: how the field's type is written.
pub(super) type Schema = BTreeMap<(&'static str, &'static str), String>;

/// What every object begins with, and takes only its own values for.
const TYPE_META: [&str; 2] = ["apiVersion", "kind"];

/// Notes the fields of a type, and of all types below it.
pub(super) fn add<T: Deserialize<'static>>(schema: &RefCell<Schema>) {
    let kind = RefCell::default();
    let explorer = Explorer {
        schema,
        kind: &kind,
    };
    let _value = T::deserialize(explorer).expect("values of every type are made");
}

/// Makes one value of whatever it is asked for.
#[derive(Clone, Copy)]
struct Explorer<'s> {
    schema: &'s RefCell<Schema>,
    /// How the type is written that was asked for last.
    kind: &'s RefCell<String>,
}

impl Explorer<'_> {
    fn is(&self, kind: impl Into<String>) {
        *self.kind.borrow_mut() = kind.into();
    }

    fn within(&self, prefix: &str) {
        self.kind.borrow_mut().insert_str(0, prefix);
    }
}

/// What a visitor expects, in its own words: the only way to know some types.
struct Expected<'v, V>(&'v V);

impl<'de, V: Visitor<'de>> fmt::Display for Expected<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

macro_rules! scalars {
    ($($method:ident $visit:ident $value:expr, $kind:literal)*) => {$(
        fn $method<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
            self.is($kind);
            visitor.$visit($value)
        }
    )*};
}

impl Deserializer<'static> for Explorer<'_> {
    type Error = Error;

    scalars! {
        deserialize_bool visit_bool false, "boolean"
        deserialize_i32 visit_i32 0, "integer"
        deserialize_i64 visit_i64 0, "integer"
        deserialize_f64 visit_f64 0.0, "number"
    }

    fn deserialize_any<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        self.is(Expected(&visitor).to_string());
        match Expected(&visitor).to_string().as_str() {
            "IntOrString" => visitor.visit_i64(0),
            _ => visitor.visit_unit(),
        }
    }

    fn deserialize_str<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = Expected(&visitor).to_string();
        self.is(if text.contains("base64") {
            "base64"
        } else {
            "string"
        });
        visitor.visit_borrowed_str("")
    }

    fn deserialize_string<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'static>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = match name {
            "Time" | "MicroTime" => {
                visitor.visit_newtype_struct(BorrowedStrDeserializer::new("1970-01-01T00:00:00Z"))
            }
            "Quantity" => visitor.visit_borrowed_str("0"),
            _ => visitor.visit_newtype_struct(self),
        };
        self.is(name);
        value
    }

    fn deserialize_seq<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = visitor.visit_seq(Once(Some(self)));
        self.within("[]");
        value
    }

    fn deserialize_map<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = visitor.visit_map(Fields {
            explorer: self,
            of: None,
            object: false,
            names: ["key"].iter(),
            name: "",
        });
        self.within("map[string]");
        value
    }

    fn deserialize_struct<V: Visitor<'static>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let known = fields.first().is_some_and(|field| {
            let schema = self.schema.borrow();
            schema.contains_key(&(name, *field))
        });
        let mut object = TYPE_META.iter().chain(&["metadata"]);
        let object = object.all(|field| fields.contains(field));
        if object {
            let lines = TYPE_META.map(|field| ((name, field), "string".to_owned()));
            self.schema.borrow_mut().extend(lines);
        }
        let value = visitor.visit_map(Fields {
            explorer: self,
            of: Some(name),
            object,
            names: if known { [].iter() } else { fields.iter() },
            name: "",
        });
        self.is(name);
        value
    }

    forward_to_deserialize_any! {
        <V: Visitor<'static>>
        i8 i16 i128 u8 u16 u32 u64 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum
        identifier ignored_any
    }
}

/// One item.
struct Once<'s>(Option<Explorer<'s>>);

impl SeqAccess<'static> for Once<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'static>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0
            .take()
            .map(|explorer| seed.deserialize(explorer))
            .transpose()
    }
}

/// Every field of a struct, or one key of a map.
struct Fields<'s> {
    explorer: Explorer<'s>,
    /// The struct's name.
    of: Option<&'static str>,
    /// Whether it is an object of its own: not every value does for [`TYPE_META`].
    object: bool,
    names: std::slice::Iter<'static, &'static str>,
    name: &'static str,
}

impl MapAccess<'static> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'static>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let object = self.object;
        let named = |name: &&&str| !object || !TYPE_META.contains(name);
        let Some(name) = self.names.find(named) else {
            return Ok(None);
        };
        self.name = name;
        seed.deserialize(BorrowedStrDeserializer::new(name))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'static>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let scratch = RefCell::default();
        let value = seed.deserialize(Explorer {
            // Nobody writes a status; what is in it has no lines.
            schema: match self.object && self.name == "status" {
                true => &scratch,
                false => self.explorer.schema,
            },
            ..self.explorer
        })?;
        if let Some(of) = self.of {
            let kind = self.explorer.kind.borrow().clone();
            self.explorer
                .schema
                .borrow_mut()
                .insert((of, self.name), kind);
        }
        Ok(value)
    }
}
