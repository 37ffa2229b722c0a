//! The machine's own nameservers, as its `/etc/resolv.conf` has them at the moment.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use crate::network::files;
use crate::sys::fs;

/// As many as glibc asks.
const MOST: usize = 3;

/// The nameservers of a `resolv.conf`, which is read when it has changed.
#[derive(Debug)]
pub(super) struct Nameservers {
    path: PathBuf,
    /// At which they listen.
    port: u16,
    read: RefCell<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    /// None if there was no file.
    state: Option<State>,
    servers: Rc<[SocketAddr]>,
}

/// By which a change of a file is seen.
#[derive(Debug, PartialEq, Eq)]
struct State {
    modified: SystemTime,
    size: u64,
    inode: u64,
}

impl Nameservers {
    pub(super) fn new(path: PathBuf, port: u16) -> Self {
        Self {
            path,
            port,
            read: RefCell::default(),
        }
    }

    /// Those to ask, in this order. None if the file has none, or cannot be read.
    pub(super) fn current(&self) -> Rc<[SocketAddr]> {
        let state = self.state();
        let mut read = self.read.borrow_mut();
        match &*read {
            Some(read) if read.state == state => Rc::clone(&read.servers),
            Some(_) | None => {
                let servers = self.read();
                *read = Some(Read {
                    state,
                    servers: Rc::clone(&servers),
                });
                servers
            }
        }
    }

    fn state(&self) -> Option<State> {
        let metadata = fs::metadata_if_there(&self.path).ok()??;
        Some(State {
            modified: metadata.modified().ok()?,
            size: metadata.len(),
            inode: metadata.ino(),
        })
    }

    fn read(&self) -> Rc<[SocketAddr]> {
        let bytes = match fs::read_if_there(&self.path) {
            Ok(bytes) => bytes.unwrap_or_default(),
            // Its names cannot be resolved then, which is what the pod is told.
            Err(error) => {
                tracing::warn!(%error, "cannot read the machine's nameservers");
                Vec::new()
            }
        };
        let names = files::nameservers(&String::from_utf8_lossy(&bytes));
        let servers = names.iter().filter_map(|name| address(name, self.port));
        servers.take(MOST).collect()
    }
}

/// `192.0.2.1`, `2001:db8::1`, `fe80::1%eth0`.
fn address(name: &str, port: u16) -> Option<SocketAddr> {
    let Some((ip, interface)) = name.split_once('%') else {
        let ip: IpAddr = name.parse().ok()?;
        return Some(SocketAddr::new(ip, port));
    };
    let ip: Ipv6Addr = ip.parse().ok()?;
    let index = interface.parse().ok().or_else(|| index_of(interface))?;
    Some(SocketAddrV6::new(ip, port, 0, index).into())
}

/// The number of a network interface.
fn index_of(interface: &str) -> Option<u32> {
    if interface.contains('/') {
        return None;
    }
    let path = Path::new("/sys/class/net").join(interface).join("ifindex");
    let text = fs::read_if_there(&path).ok()??;
    String::from_utf8_lossy(&text).trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |name: &str, expected: Option<&str>| {
            let address = address(name, 53).map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{name}");
        };
        check("192.0.2.1", Some("192.0.2.1:53"));
        check("2001:db8::1", Some("[2001:db8::1]:53"));
        check("fe80::1%7", Some("[fe80::1%7]:53"));
        check("fe80::1%lo", Some("[fe80::1%1]:53"));
        check("fe80::1%nonexistent0", None);
        check("fe80::1%../x", None);
        check("dns.example", None);
    }
}
