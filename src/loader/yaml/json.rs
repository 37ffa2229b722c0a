//! JSON with places. YAML's parser refuses some of it (tabs, surrogate pairs), so it has a reader of its own.

use std::collections::HashMap;
use std::rc::Rc;

use super::super::node::{Entry, Mapping, Node, Span, Value};
use super::substitute::Substitution;
use super::{Fault, MAX_DEPTH};

/// Reads JSON values that follow each other.
pub(super) fn parse(text: &str, substitution: Option<&Substitution>) -> Result<Vec<Node>, Fault> {
    let mut reader = Reader {
        rest: text,
        line: 1,
        column: 1,
        substitution,
    };
    let mut documents = Vec::new();
    loop {
        reader.skip_space();
        if reader.rest.is_empty() {
            return Ok(documents);
        }
        let node = reader.value(0)?;
        if !node.is_null() {
            documents.push(node);
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
    column: u32,
    substitution: Option<&'a Substitution>,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Node, Fault> {
        self.skip_space();
        let start = self.here();
        if depth >= MAX_DEPTH {
            return Err(self.fault(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let value = match self.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.array(depth)?,
            Some('"') => self.substituted(start)?,
            Some('-' | '0'..='9') => self.number()?,
            _ => self.word()?,
        };
        let span = match &value {
            Value::Map(_) | Value::Seq(_) => start,
            _ => self.since(start),
        };
        Ok(Node::new(span, value))
    }

    fn object(&mut self, depth: usize) -> Result<Value, Fault> {
        self.expect('{')?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<Rc<str>, u32> = HashMap::new();
        self.skip_space();
        while self.peek() != Some('}') {
            if !entries.is_empty() {
                self.expect(',')?;
                self.skip_space();
            }
            let start = self.here();
            let key: Rc<str> = self.string()?.into();
            let key_span = self.since(start);
            if let Some(line) = lines.insert(key.clone(), start.line) {
                let message = format!("the key `{key}` is already set in line {line}");
                return Err(Fault {
                    message,
                    hint: None,
                    span: key_span,
                });
            }
            self.skip_space();
            self.expect(':')?;
            let value = self.value(depth + 1)?;
            entries.push(Entry {
                key,
                key_span,
                value,
            });
            self.skip_space();
        }
        self.expect('}')?;
        Ok(Value::Map(Rc::new(Mapping::new(entries))))
    }

    fn array(&mut self, depth: usize) -> Result<Value, Fault> {
        self.expect('[')?;
        let mut items = Vec::new();
        self.skip_space();
        while self.peek() != Some(']') {
            if !items.is_empty() {
                self.expect(',')?;
            }
            items.push(self.value(depth + 1)?);
            self.skip_space();
        }
        self.expect(']')?;
        Ok(Value::Seq(items.into()))
    }

    fn substituted(&mut self, start: Span) -> Result<Value, Fault> {
        let text = self.string()?;
        match self
            .substitution
            .map(|substitution| substitution.apply(&text))
        {
            None => Ok(Value::String(text.into())),
            Some(Ok(text)) => Ok(Value::String(text.into())),
            Some(Err(error)) => Err(Fault {
                message: error.to_string(),
                hint: None,
                span: self.since(start),
            }),
        }
    }

    /// A string: its end is found here, its escapes are serde_json's.
    fn string(&mut self) -> Result<String, Fault> {
        if self.peek() != Some('"') {
            return Err(self.fault("not valid JSON: expected a string".to_owned()));
        }
        let mut escaped = false;
        let end = self.rest.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let token = end.and_then(|(end, _)| self.rest.get(..=end));
        let text = token.and_then(|token| serde_json::from_str(token).ok());
        match (token.map(str::len), text) {
            (Some(length), Some(text)) => {
                self.advance(length);
                Ok(text)
            }
            _ => Err(self
                .fault("not valid JSON: the string does not end or has a wrong escape".to_owned())),
        }
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | '+' | '.' | 'e' | 'E'))
            .unwrap_or(self.rest.len());
        let token = self.rest.get(..end).unwrap_or_default();
        let Ok(number) = serde_json::from_str::<serde_json::Number>(token) else {
            return Err(self.fault(format!("not valid JSON: `{token}` is not a number")));
        };
        let value = match (number.as_i128(), number.as_f64()) {
            (Some(value), _) => Value::Int(value),
            (None, Some(value)) => Value::Float(value),
            (None, None) => return Err(self.fault(format!("`{token}` is out of range"))),
        };
        self.advance(end);
        Ok(value)
    }

    fn word(&mut self) -> Result<Value, Fault> {
        for (word, value) in [
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("null", Value::Null),
        ] {
            if self.rest.starts_with(word) {
                self.advance(word.len());
                return Ok(value);
            }
        }
        Err(self.fault("not valid JSON: expected a value".to_owned()))
    }

    fn expect(&mut self, wanted: char) -> Result<(), Fault> {
        if self.peek() == Some(wanted) {
            self.advance(wanted.len_utf8());
            Ok(())
        } else {
            Err(self.fault(format!("not valid JSON: expected `{wanted}`")))
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip_space(&mut self) {
        let trimmed = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.advance(self.rest.len() - trimmed.len());
    }

    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        let mut chars = passed.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\n' || (c == '\r' && chars.peek() != Some(&'\n')) {
                (self.line, self.column) = (self.line.saturating_add(1), 1);
            } else {
                self.column = self.column.saturating_add(1);
            }
        }
        self.rest = rest;
    }

    fn here(&self) -> Span {
        Span {
            line: self.line,
            column: self.column,
            width: 1,
        }
    }

    fn since(&self, start: Span) -> Span {
        Span {
            width: self.column.saturating_sub(start.column).max(1),
            ..start
        }
    }

    fn fault(&self, message: String) -> Fault {
        Fault {
            message,
            hint: None,
            span: self.here(),
        }
    }
}
