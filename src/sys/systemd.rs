//! systemd, the machine's or a user's, asked for one thing: a scope, which is a cgroup that is the asker's to divide.
//!
//! Spoken is D-Bus, little-endian, over systemd's own socket: no bus has to run. One call, one answer:
//!
//! ```text
//! StartTransientUnit(name s, mode s, properties a(sv), other units a(sa(sv))) → job o
//! ```

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long systemd may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whose systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// The machine's first process.
    System,
    /// The user's with this number.
    OfUser(u32),
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) manager: Manager,
    /// `NAME.scope`
    pub(super) name: &'a str,
    /// `NAME.slice`; the manager's choice if none.
    pub(super) slice: Option<&'a str>,
    pub(super) description: &'a str,
    /// The first process in it.
    pub(super) pid: u32,
}

/// Whether the machine was booted with systemd (`sd_booted`).
pub(super) fn is_there() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Asks for a scope. When this returns, systemd has agreed, and the process is about to be moved. None if there is no systemd
/// to be asked.
///
/// # Errors
/// It refuses, in its own words, or does not answer. [`io::ErrorKind::AlreadyExists`]: there is one of this name.
pub(super) fn start_scope(scope: &Scope<'_>) -> io::Result<Option<()>> {
    let (socket, uid) = match scope.manager {
        Manager::System => (PathBuf::from("/run/systemd/private"), 0),
        Manager::OfUser(uid) => (format!("/run/user/{uid}/systemd/private").into(), uid),
    };
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    sign_in(&mut stream, uid)?;
    stream.write_all(&call(scope))?;
    loop {
        let message = Message::read(&mut stream)?;
        match message.kind {
            Message::RETURN => return Ok(Some(())),
            Message::ERROR => return Err(io::Error::new(message.error_kind(), message.text())),
            // What it tells everybody.
            _ => {}
        }
    }
}

/// By the number that the kernel tells it as well.
fn sign_in(stream: &mut UnixStream, uid: u32) -> io::Result<()> {
    let digits: String = uid
        .to_string()
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    stream.write_all(format!("\0AUTH EXTERNAL {digits}\r\n").as_bytes())?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    if !line.starts_with(b"OK ") {
        let said = String::from_utf8_lossy(&line).trim().to_owned();
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, said));
    }
    stream.write_all(b"BEGIN\r\n")
}

fn call(scope: &Scope<'_>) -> Vec<u8> {
    let mut body = Writer::default();
    body.string(scope.name);
    body.string("fail");
    body.array(8, |body| {
        body.property("Description", "s", |body| body.string(scope.description));
        if let Some(slice) = scope.slice {
            body.property("Slice", "s", |body| body.string(slice));
        }
        body.property("Delegate", "b", |body| body.number(1));
        body.property("CollectMode", "s", |body| body.string("inactive-or-failed"));
        body.property("PIDs", "au", |body| {
            body.array(4, |body| body.number(scope.pid));
        });
        // Pods have as many processes as they like, as with a kubelet; systemd's default is 15 % of what the machine may have.
        body.property("TasksMax", "t", |body| body.long(u64::MAX));
    });
    body.array(8, |_| {});

    const FIELDS: [(u8, &str, &str); 5] = [
        (1, "o", "/org/freedesktop/systemd1"),
        (2, "s", "org.freedesktop.systemd1.Manager"),
        (3, "s", "StartTransientUnit"),
        (6, "s", "org.freedesktop.systemd1"),
        (8, "g", "ssa(sv)a(sa(sv))"),
    ];
    let mut message = Writer::default();
    // Little-endian, a method call, no flags, version 1.
    message.0.extend([b'l', 1, 0, 1]);
    message.number(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
    message.number(1);
    message.array(8, |message| {
        for (code, signature, value) in FIELDS {
            message.align(8);
            message.0.push(code);
            message.signature(signature);
            match signature {
                "g" => message.signature(value),
                _ => message.string(value),
            }
        }
    });
    message.align(8);
    message.0.extend(body.0);
    message.0
}

/// What is said, as D-Bus puts it: each value at a multiple of its size.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn long(&mut self, number: u64) {
        self.align(8);
        self.0.extend(number.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// `alignment` is that of the elements.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let length = self.0.len() - 4..self.0.len();
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let bytes = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0.splice(length, bytes.to_le_bytes());
    }

    fn property(&mut self, name: &str, signature: &str, value: impl FnOnce(&mut Self)) {
        self.align(8);
        self.string(name);
        self.signature(signature);
        value(self);
    }
}

/// What is answered.
struct Message {
    kind: u8,
    /// What comes with every message, by number; of an error, its name.
    fields: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    const RETURN: u8 = 2;
    const ERROR: u8 = 3;
    /// An honest one is far shorter.
    const LONGEST: usize = 1 << 20;

    fn read(stream: &mut impl io::Read) -> io::Result<Self> {
        let mut head = [0; 16];
        stream.read_exact(&mut head)?;
        let [order, kind, ..] = head;
        let number = |at: usize| {
            let bytes: [u8; 4] = head.get(at..at + 4)?.try_into().ok()?;
            let number = match order {
                b'B' => u32::from_be_bytes(bytes),
                _ => u32::from_le_bytes(bytes),
            };
            usize::try_from(number).ok().filter(|n| *n < Self::LONGEST)
        };
        let (Some(body), Some(fields)) = (number(4), number(12)) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        stream.read_exact(&mut rest)?;
        let body = rest.split_off(fields.next_multiple_of(8));
        Ok(Self {
            kind,
            fields: rest,
            body,
        })
    }

    fn error_kind(&self) -> io::ErrorKind {
        const EXISTS: &[u8] = b"org.freedesktop.systemd1.UnitExists\0";
        match self.fields.windows(EXISTS.len()).any(|part| part == EXISTS) {
            true => io::ErrorKind::AlreadyExists,
            false => io::ErrorKind::Other,
        }
    }

    /// An error's message, which is the body's first value.
    fn text(&self) -> String {
        let text = self.body.get(4..).unwrap_or_default();
        let end = text.iter().position(|byte| *byte == 0);
        let text = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_laid_out_as_d_bus_says() {
        let mut writer = Writer::default();
        writer.string("ab");
        writer.array(8, |writer| {
            writer.property("P", "u", |writer| writer.number(7));
        });
        let expected: &[u8] = &[
            2, 0, 0, 0, b'a', b'b', 0, 0, // padded for the number
            16, 0, 0, 0, 0, 0, 0, 0, // the array's length, padded for a structure
            1, 0, 0, 0, b'P', 0, 1, b'u', 0, 0, 0, 0, 7, 0, 0, 0,
        ];
        assert_eq!(writer.0, expected);
    }

    #[test]
    fn a_call_is_as_long_as_it_says() {
        let call = call(&Scope {
            manager: Manager::System,
            name: "kplay-1.scope",
            slice: Some("kplay.slice"),
            description: "a pod",
            pid: 5,
        });
        let message = Message::read(&mut call.as_slice()).unwrap();
        assert_eq!(message.kind, 1);
        assert_eq!(message.text(), "kplay-1.scope");
        let fields = u32::from_le_bytes(call[12..16].try_into().unwrap()) as usize;
        assert_eq!(
            call.len(),
            16 + fields.next_multiple_of(8) + message.body.len()
        );
    }
}
