//! TLS without verification: a probe asks whether a server works, not who it is.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, InvalidMessage, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Cause;

/// The protocols that a server may choose from (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) enum Offer {
    /// The server is not asked, and speaks HTTP/1.1.
    Nothing,
    Http2OrHttp1,
    Http2,
}

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

impl Offer {
    fn names(self) -> &'static [&'static [u8]] {
        match self {
            Self::Nothing => &[],
            Self::Http2OrHttp1 => &[HTTP2, HTTP1],
            Self::Http2 => &[HTTP2],
        }
    }
}

/// Whether the server has chosen HTTP/2.
pub(super) fn chose_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

/// Shakes hands with whoever is there.
pub(in crate::executor) async fn connect(
    host: &str,
    stream: TcpStream,
    offer: Offer,
) -> Result<TlsStream<TcpStream>, Cause> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Cause::Other(format!("invalid host {host:?}")))?;
    let connector = TlsConnector::from(Arc::new(configuration(offer)?));
    connector.connect(name, stream).await.map_err(cause)
}

fn configuration(offer: Offer) -> Result<ClientConfig, Cause> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut configuration = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(Cause::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    configuration.resumption = Resumption::disabled();
    configuration.alpn_protocols = offer.names().iter().map(|name| name.to_vec()).collect();
    Ok(configuration)
}

fn cause(error: io::Error) -> Cause {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        // The first byte was none of TLS's; a letter, as far as servers for HTTP go.
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            Cause::PlainAnswer
        }
        Some(tls) => Cause::Tls(tls.clone()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Cause::Closed,
        None => Cause::Io(error),
    }
}

/// Takes any certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
