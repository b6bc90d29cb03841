use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A certificate authority of its own, and a server certificate that it signed, as PEM files and as rustls
/// configurations. Clones share the files, which go with the last clone.
///
/// ```
/// let certificates = connectord_sample::Certificates::new();
/// assert!(std::fs::read_to_string(certificates.ca_file())?.starts_with("-----BEGIN CERTIFICATE-----"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Certificates {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    _directory: TempDir,
    ca_file: PathBuf,
    server_cert: PathBuf,
    server_key: PathBuf,
    ca: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    spki: Vec<u8>,
}

/// Names of this machine.
const USUAL: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// When the server certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Validity {
    Now,
    Over,
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificates {
    /// For `localhost`, `127.0.0.1` and `::1`.
    ///
    /// # Panics
    /// Where [`Certificates::try_new`] returns an error.
    pub fn new() -> Self {
        Self::with_names(&[])
    }

    /// For `localhost`, `127.0.0.1` and `::1`.
    ///
    /// # Errors
    /// When no temporary directory can be made, no file be written in it, or no key be made.
    pub fn try_new() -> io::Result<Self> {
        Self::make(USUAL, Validity::Now)
    }

    /// For `localhost`, `127.0.0.1`, `::1` and these names or addresses.
    ///
    /// # Panics
    /// Where [`Certificates::try_new`] returns an error, and when a name cannot be certified.
    pub fn with_names(names: &[&str]) -> Self {
        Self::made(&[USUAL, names].concat(), Validity::Now)
    }

    /// For these names only: what a server shows that is not the one asked for.
    ///
    /// # Panics
    /// As [`Certificates::with_names`].
    pub fn only_for(names: &[&str]) -> Self {
        Self::made(names, Validity::Now)
    }

    /// For `localhost`, `127.0.0.1` and `::1`, but valid only in the year 2020.
    ///
    /// # Panics
    /// As [`Certificates::new`].
    pub fn expired() -> Self {
        Self::made(USUAL, Validity::Over)
    }

    fn made(names: &[&str], validity: Validity) -> Self {
        Self::make(names, validity).unwrap_or_else(|e| panic!("no certificate for {names:?}: {e}"))
    }

    fn make(names: &[&str], validity: Validity) -> io::Result<Self> {
        let ca = authority()?;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
            .map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = match validity {
            Validity::Now => date_time_ymd(2099, 1, 1),
            Validity::Over => date_time_ymd(2020, 12, 31),
        };
        let server = params.signed_by(&key, &ca).map_err(io::Error::other)?;

        // Servers that drop their privileges read the files, too.
        let directory = tempfile::Builder::new().prefix("connectord-certificates-").tempdir()?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let write = |name: &str, pem: String| {
            let path = directory.path().join(name);
            let written = std::fs::write(&path, pem).map(|()| path.clone());
            written.map_err(|e| io::Error::new(e.kind(), format!("cannot write {}: {e}", path.display())))
        };
        Ok(Self {
            inner: Arc::new(Inner {
                ca_file: write("ca.pem", ca.pem())?,
                server_cert: write("server.pem", server.pem() + &ca.pem())?,
                server_key: write("server.key", key.serialize_pem())?,
                ca: ca.der().clone(),
                chain: vec![server.der().clone(), ca.der().clone()],
                spki: key.subject_public_key_info(),
                key: key.serialize_der(),
                _directory: directory,
            }),
        })
    }

    /// PEM file with the authority's certificate: what a client is to trust.
    pub fn ca_file(&self) -> &Path {
        &self.inner.ca_file
    }

    /// PEM file with the server's chain.
    pub fn server_cert(&self) -> &Path {
        &self.inner.server_cert
    }

    /// PEM file with the server's private key (PKCS #8).
    pub fn server_key(&self) -> &Path {
        &self.inner.server_key
    }

    /// The authority's certificate, DER.
    pub fn ca_der(&self) -> &[u8] {
        &self.inner.ca
    }

    /// The server's certificate, DER.
    pub fn server_der(&self) -> &[u8] {
        &self.inner.chain[0]
    }

    /// SHA-256 of the server's certificate, 64 hexadecimal digits in lower case.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.inner.chain[0]))
    }

    /// SHA-256 of the server's public key (SubjectPublicKeyInfo), 64 hexadecimal digits in lower case.
    pub fn key_fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.inner.spki))
    }

    /// What a server of this certificate needs; TLS 1.2 and 1.3.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.inner.key.clone()));
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_no_client_auth()
            .with_single_cert(self.inner.chain.clone(), key)
            .expect("key and certificate were made for each other");
        Arc::new(config)
    }

    /// What a client needs that trusts this authority and nobody else.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.inner.ca.clone()).expect("the authority is one");
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

fn authority() -> io::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, "connectord test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
    let key = KeyPair::generate().map_err(io::Error::other)?;
    CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn openssl_verifies_the_chain_and_agrees_on_the_fingerprint() {
        let certificates = Certificates::with_names(&["pop.example.net"]);
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).output().expect("package openssl is installed");
            (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (ca, server) = (certificates.ca_file().to_str().unwrap(), certificates.server_cert().to_str().unwrap());
        let verify = |host: &str| openssl(&["verify", "-CAfile", ca, "-verify_hostname", host, server]).0;
        assert!(verify("localhost") && verify("pop.example.net"));
        assert!(!verify("other.example.net"));
        let (_, shown) = openssl(&["x509", "-noout", "-fingerprint", "-sha256", "-in", server]);
        let shown = shown.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
        assert_eq!(shown, certificates.fingerprint());
    }

    #[test]
    fn an_expired_certificate_is_refused_for_that_reason() {
        let certificates = Certificates::expired();
        let output = Command::new("openssl")
            .args(["verify", "-CAfile"])
            .arg(certificates.ca_file())
            .arg(certificates.server_cert())
            .output()
            .expect("package openssl is installed");
        assert!(String::from_utf8_lossy(&output.stderr).contains("certificate has expired"), "{output:?}");
    }
}
