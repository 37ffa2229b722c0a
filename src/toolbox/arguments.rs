//! The arguments of an applet: options first, then what it works on.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use super::Error;

/// What is left of an applet's arguments.
#[derive(Debug)]
pub(super) struct Arguments {
    applet: &'static str,
    usage: &'static str,
    rest: VecDeque<OsString>,
    /// The value of an option that was written as `--name=value`.
    value: Option<String>,
}

impl Arguments {
    pub(super) fn new(applet: &'static str, usage: &'static str, rest: VecDeque<OsString>) -> Self {
        Self {
            applet,
            usage,
            rest,
            value: None,
        }
    }

    /// The next option, as `--name`; `--` ends them.
    pub(super) fn option(&mut self) -> Option<String> {
        let text = self.rest.front()?.to_str()?;
        if !text.starts_with("--") {
            return None;
        }
        if text == "--" {
            self.rest.pop_front();
            return None;
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.to_owned(), None),
        };
        self.value = value;
        self.rest.pop_front();
        Some(name)
    }

    /// The value of the option that was just taken.
    pub(super) fn value<T: FromStr>(&mut self, option: &str) -> Result<T, Error> {
        let text = match self.value.take() {
            Some(value) => OsString::from(value),
            None => match self.rest.pop_front() {
                Some(value) => value,
                None => return Err(self.wrong(format!("`{option}` needs a value"))),
            },
        };
        self.parse(option, &text)
    }

    /// An option that the applet does not have.
    pub(super) fn unknown(&self, option: &str) -> Error {
        self.wrong(format!("`{}` takes no {option:?}", self.applet))
    }

    /// The next argument, which must be there.
    pub(super) fn next<T: FromStr>(&mut self, name: &str) -> Result<T, Error> {
        let text = self.next_path(name)?;
        self.parse(name, text.as_os_str())
    }

    /// The next argument, if there is one.
    pub(super) fn next_if_any<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Error> {
        match self.rest.is_empty() {
            true => Ok(None),
            false => self.next(name).map(Some),
        }
    }

    /// The next argument, a path.
    pub(super) fn next_path(&mut self, name: &str) -> Result<PathBuf, Error> {
        match self.rest.pop_front() {
            Some(path) => Ok(path.into()),
            None => Err(self.wrong(format!("`{}` needs {name}", self.applet))),
        }
    }

    /// All that is left.
    pub(super) fn rest(self) -> VecDeque<OsString> {
        self.rest
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<(), Error> {
        match self.rest.front() {
            None => Ok(()),
            Some(extra) => Err(self.wrong(format!("`{}` takes no {extra:?}", self.applet))),
        }
    }

    fn parse<T: FromStr>(&self, name: &str, text: &std::ffi::OsStr) -> Result<T, Error> {
        match text.to_str().map(str::parse) {
            Some(Ok(value)) => Ok(value),
            Some(Err(_)) | None => Err(self.wrong(format!("{name} cannot be {text:?}"))),
        }
    }

    fn wrong(&self, what: String) -> Error {
        Error::Usage(format!("{what}\nusage: {} {}", self.applet, self.usage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(texts: &[&str]) -> Arguments {
        Arguments::new("test", "", texts.iter().map(OsString::from).collect())
    }

    #[test]
    fn options_then_the_rest() {
        let mut arguments =
            arguments(&["--port", "80", "--root=/x=y", "--flag", "--", "--text", "b"]);
        assert_eq!(arguments.option().as_deref(), Some("--port"));
        assert_eq!(arguments.value::<u16>("--port").ok(), Some(80));
        assert_eq!(arguments.option().as_deref(), Some("--root"));
        assert_eq!(
            arguments.value::<String>("--root").ok().as_deref(),
            Some("/x=y")
        );
        assert_eq!(arguments.option().as_deref(), Some("--flag"));
        assert_eq!(arguments.option(), None);
        assert_eq!(
            arguments.next::<String>("TEXT").ok().as_deref(),
            Some("--text")
        );
        assert!(arguments.end().is_err());
        assert_eq!(
            arguments
                .next_if_any::<String>("TEXT")
                .ok()
                .flatten()
                .as_deref(),
            Some("b")
        );
        assert_eq!(arguments.next_if_any::<String>("TEXT").ok().flatten(), None);
        assert!(arguments.end().is_ok());
    }

    #[test]
    fn a_flags_value_is_not_the_next_options() {
        let mut arguments = arguments(&["--flag=x", "--port", "1"]);
        assert_eq!(arguments.option().as_deref(), Some("--flag"));
        assert_eq!(arguments.option().as_deref(), Some("--port"));
        assert_eq!(arguments.value::<u16>("--port").ok(), Some(1));
    }
}
