//! What tells this machine, and things made on it, from others.

use std::io;

/// A random UUID (version 4) in its usual form.
///
/// # Errors
/// The kernel has no random numbers yet.
pub fn random_uuid() -> io::Result<String> {
    let value = u128::from_be_bytes(random_bytes()?);
    let versioned = (value & !(0xf000_u128 << 64) & !(0xc000_u128 << 48))
        | (0x4000_u128 << 64)
        | (0x8000_u128 << 48);
    let hex = format!("{versioned:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    Ok(format!("{a}-{b}-{c}-{d}-{e}"))
}

/// 32 random bytes as 64 hexadecimal digits: a container's id.
///
/// # Errors
/// The kernel has no random numbers yet.
pub fn random_hex() -> io::Result<String> {
    let halves = [random_bytes()?, random_bytes()?];
    let [high, low] = halves.map(u128::from_be_bytes);
    Ok(format!("{high:032x}{low:032x}"))
}

/// Whether this process was started by root.
#[must_use]
pub fn is_root() -> bool {
    super::userns::caller() == 0
}

/// How many processors this process may run on.
#[must_use]
pub fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

/// Whether the kernel enforces AppArmor profiles.
#[must_use]
pub fn has_app_armor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with(b"Y"))
}

/// Whether the kernel has loaded this AppArmor profile; nothing if it cannot be asked, since the file system with the
/// list is not mounted everywhere.
#[must_use]
pub fn has_app_armor_profile(name: &str) -> Option<bool> {
    // The list does not tell of other policy namespaces (`:NAMESPACE:NAME`).
    if name.starts_with(':') {
        return None;
    }
    let list = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").ok()?;
    Some(lists_profile(&list, name))
}

/// The lines are `NAME (MODE)`; a name may have blanks.
fn lists_profile(list: &str, name: &str) -> bool {
    let mut names = list.lines().filter_map(|line| line.rsplit_once(" ("));
    names.any(|(loaded, _)| loaded == name)
}

/// The kernel's release: `6.1.0-18-amd64`.
#[must_use]
pub fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// The first two numbers of a kernel's release.
#[must_use]
pub fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|text| text.parse().ok());
    (next().unwrap_or(0), next().unwrap_or(0))
}

/// The address from which this machine would reach others; none without a way out. Sends nothing.
#[must_use]
pub fn host_ip() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // A documentation address: only the route is looked up.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The machine's memory in bytes.
#[must_use]
pub fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}

/// Makes this process, which began in a user namespace, one of the user outside who asked for it.
pub fn speak_for(uid: u32) {
    super::userns::set_caller(uid);
}

/// The user that this process was started as.
#[must_use]
pub fn uid() -> u32 {
    super::userns::caller()
}

/// The group that this process runs as.
#[must_use]
pub fn gid() -> u32 {
    rustix::process::getgid().as_raw()
}

/// The machine's name, as `uname -n` says it.
#[must_use]
pub fn node_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Bytes that nobody can guess.
///
/// # Errors
/// The kernel has no random numbers yet.
pub fn random_bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_armor_profiles_are_listed() {
        let list = "one (enforce)\na name (x) (complain)\n";
        for (name, expected) in [
            ("one", true),
            ("a name (x)", true),
            ("one (enforce)", false),
            ("a name", false),
            ("", false),
        ] {
            assert_eq!(lists_profile(list, name), expected, "{name}");
        }
    }

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        let (a, b) = (random_uuid().unwrap(), random_uuid().unwrap());
        assert_ne!(a, b);
        for uuid in [a, b] {
            assert_eq!(uuid.len(), 36);
            let parts: Vec<&str> = uuid.split('-').collect();
            assert!(parts[2].starts_with('4'), "{uuid}");
            assert!(parts[3].starts_with(['8', '9', 'a', 'b']), "{uuid}");
        }
    }
}
