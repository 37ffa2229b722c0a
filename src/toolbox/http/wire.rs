//! What a connection is read from and written to: TCP, or TLS over it.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

/// A certificate that nobody should trust and the key to it: compiled in, so that a pod needs no files to speak TLS.
const IDENTITY: &[u8] = include_bytes!("../../../testdata/toolbox/tls.pem");

/// How the server proves who it is.
pub(in crate::toolbox) fn tls() -> io::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::from_pem_slice(IDENTITY).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(IDENTITY).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![chain], key)
        })
        .map(Arc::new)
        .map_err(io::Error::other)
}

/// A connection of a client. As a `TcpStream`, it is read and written through a shared reference.
#[derive(Debug)]
pub(super) struct Wire {
    tcp: TcpStream,
    tls: Option<RefCell<ServerConnection>>,
}

impl Wire {
    /// The hands are shaken when it is first used.
    pub(super) fn new(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        let tls = match tls {
            Some(config) => {
                let connection = ServerConnection::new(Arc::clone(config));
                Some(RefCell::new(connection.map_err(io::Error::other)?))
            }
            None => None,
        };
        // A client that reads slowly is waited for, but not for ever.
        tcp.set_write_timeout(Some(Duration::from_secs(30))).ok();
        tcp.set_nodelay(true).ok();
        Ok(Self { tcp, tls })
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp.set_read_timeout(timeout)
    }

    /// Says that nothing more will be written.
    pub(super) fn end(&self) -> io::Result<()> {
        if let Some(tls) = &self.tls {
            let mut tls = tls.borrow_mut();
            tls.send_close_notify();
            tls.write_tls(&mut &self.tcp)?;
        }
        self.tcp.shutdown(Shutdown::Write)
    }
}

impl Read for &Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => (&self.tcp).read(bytes),
            Some(tls) => rustls::Stream::new(&mut *tls.borrow_mut(), &mut &self.tcp).read(bytes),
        }
    }
}

impl Write for &Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => (&self.tcp).write(bytes),
            Some(tls) => rustls::Stream::new(&mut *tls.borrow_mut(), &mut &self.tcp).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.tls {
            None => Ok(()),
            Some(tls) => rustls::Stream::new(&mut *tls.borrow_mut(), &mut &self.tcp).flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_one() {
        tls().expect("a certificate and the key to it");
    }
}
