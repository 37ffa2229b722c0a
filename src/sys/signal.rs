//! Signals: numbers that are checked, their names, and a clean slate for a program that is about to be executed.

use std::io;

/// A signal's number, from 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

/// The first real-time signal that programs may use; the C library keeps two for itself.
const RTMIN: u8 = 34;
/// The last signal.
const MAX: u8 = 64;

/// The names that `kill -l` prints, by number from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl Signal {
    pub const HUP: Self = Self(1);
    pub const INT: Self = Self(2);
    pub const KILL: Self = Self(9);
    pub const USR1: Self = Self(10);
    pub const TERM: Self = Self(15);
    pub const CHLD: Self = Self(17);

    /// The signal with this number, if there is one.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        match u8::try_from(number) {
            Ok(number @ 1..=MAX) => Some(Self(number)),
            _ => None,
        }
    }

    /// The signal that `text` names: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `RTMAX-1`; in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse() {
            return Self::from_number(number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(rest) = name.strip_prefix("RTMIN") {
            return real_time(rest, RTMIN, '+');
        }
        if let Some(rest) = name.strip_prefix("RTMAX") {
            return real_time(rest, MAX, '-');
        }
        let alias = match name {
            "IOT" => "ABRT",
            "POLL" => "IO",
            "CLD" => "CHLD",
            other => other,
        };
        let index = NAMES.iter().position(|known| *known == alias)?;
        Self::from_number(i32::try_from(index).ok()? + 1)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

fn real_time(rest: &str, base: u8, sign: char) -> Option<Signal> {
    let offset: i32 = match rest.strip_prefix(sign) {
        Some(digits) => digits.parse().ok().filter(|offset| *offset >= 0)?,
        None if rest.is_empty() => 0,
        None => return None,
    };
    let number = match sign {
        '+' => i32::from(base) + offset,
        _ => i32::from(base) - offset,
    };
    Signal::from_number(number).filter(|signal| signal.0 >= RTMIN)
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 >= RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "SIG{}", self.0),
        }
    }
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Gives every signal its default action and blocks none: what a program may expect that is about to be executed.
///
/// Rust's runtime ignores SIGPIPE, and an ignored signal stays ignored across `execve`.
pub fn reset_all() {
    // The kernel's `struct sigaction`; zero is SIG_DFL, no flags, an empty mask. Not through the C library, which keeps
    // two signals for itself and leaves them as they are.
    let default = [0_u64; 4];
    for number in 1..=i64::from(MAX) {
        // SAFETY: `default` is read only; SIGKILL and SIGSTOP are refused, which is fine.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: `none` is initialised by sigemptyset before it is used.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Asks the kernel to send this process `signal` when its parent dies.
///
/// Forgotten when the process changes its user or executes a set-user-ID program. The parent may have died before the
/// call: the caller must check.
///
/// # Errors
/// The kernel refuses.
pub fn on_parent_death(signal: Signal) -> io::Result<()> {
    // SAFETY: takes only numbers.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal.number(), 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::Signal;

    #[test]
    fn names() {
        let check = |text: &str, expected: Option<i32>| {
            assert_eq!(Signal::parse(text).map(Signal::number), expected, "{text}");
        };
        check("SIGTERM", Some(15));
        check("term", Some(15));
        check("9", Some(9));
        check("SIGQUIT", Some(3));
        check("SIGWINCH", Some(28));
        check("SIGRTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
        check("RTMAX", Some(64));
        check("RTMIN+31", None);
        check("RTMIN-1", None);
        check("SIGIOT", Some(6));
        check("0", None);
        check("65", None);
        check("", None);
        check("SIGNAL", None);
    }

    #[test]
    fn display() {
        let check = |number: i32, expected: &str| {
            assert_eq!(
                Signal::from_number(number)
                    .map(|s| s.to_string())
                    .as_deref(),
                Some(expected)
            );
        };
        check(15, "SIGTERM");
        check(31, "SIGSYS");
        check(33, "SIG33");
        check(37, "SIGRTMIN+3");
    }
}
