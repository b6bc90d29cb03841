//! Whom to trust, and the TLS step itself.

mod certificate;
mod configs;
mod problem;
mod tickets;
mod verifier;

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stream::Transport;
use crate::{Pin, TlsInfo};

pub(crate) use certificate::end_point_hash;
pub(crate) use configs::Configs;
pub use problem::{Fingerprints, TlsProblem};

/// What turns a plaintext stream into a TLS stream, now or when STARTTLS has been agreed.
#[derive(Clone, Debug)]
pub(crate) struct Upgrade {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

impl Upgrade {
    /// `name` is a host name or an IP address.
    pub(crate) fn new(config: Arc<ClientConfig>, name: &str) -> Result<Self, TlsProblem> {
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsProblem::ServerName { name: connectord_wire::Escaped::text(name).to_string() })?;
        Ok(Self { config, server_name })
    }

    pub(crate) async fn handshake(self, transport: Transport) -> Result<(TlsStream<Transport>, TlsInfo), TlsProblem> {
        let stream = TlsConnector::from(self.config)
            .connect(self.server_name, transport)
            .await
            .map_err(|error| TlsProblem::from_io(&error))?;
        let info = info(&stream);
        Ok((stream, info))
    }
}

fn info(stream: &TlsStream<Transport>) -> TlsInfo {
    let connection = stream.get_ref().1;
    let is_13 = connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    let fingerprints = certificate.map(Fingerprints::of);
    // RFC 9266 §4.2 allows the exporter with TLS 1.2 only under the extended master secret, which rustls does not tell.
    let exporter = is_13
        .then(|| connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).ok())
        .flatten()
        .map(|octets| octets.to_vec());
    TlsInfo {
        version: if is_13 { "TLSv1.3" } else { "TLSv1.2" },
        cipher: connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("unknown")
            .to_owned(),
        certificate: fingerprints.map(|fingerprints| fingerprints.certificate),
        key: fingerprints.and_then(|fingerprints| fingerprints.key),
        exporter,
        resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        server_end_point: certificate.and_then(|certificate| end_point_hash(certificate)),
    }
}

impl Fingerprints {
    /// Of this certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let key = webpki::EndEntityCert::try_from(certificate)
            .ok()
            .map(|parsed| sha256(parsed.subject_public_key_info().as_ref()));
        Self { certificate: sha256(certificate), key }
    }
}

fn sha256(octets: &[u8]) -> Pin {
    use sha2::Digest as _;
    Pin(sha2::Sha256::digest(octets).into())
}

/// A text without usable certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// There is no `BEGIN CERTIFICATE` in it.
    #[error("expected at least one -----BEGIN CERTIFICATE----- block")]
    Empty,
    /// A block is damaged.
    #[error("certificate block {block} is damaged")]
    Damaged {
        /// Which, counted from 1.
        block: usize,
    },
}

/// Reads the certificates of a PEM file; other blocks in it are passed over.
///
/// ```
/// assert_eq!(connectord_net::certificates_from_pem(b"nothing"), Err(connectord_net::PemError::Empty));
/// ```
///
/// # Errors
/// [`PemError`] when there is none, or one is damaged.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let block = certificates.len() + 1;
        let certificate = certificate.map_err(|_| PemError::Damaged { block })?;
        webpki::anchor_from_trusted_cert(&certificate).map_err(|_| PemError::Damaged { block })?;
        certificates.push(certificate);
    }
    if certificates.is_empty() { Err(PemError::Empty) } else { Ok(certificates) }
}
