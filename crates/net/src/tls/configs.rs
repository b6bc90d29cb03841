use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;

use super::TlsProblem;
use super::tickets::Tickets;
use super::verifier::{Trust, Verifier};
use crate::{TlsSettings, TlsVersion};

/// How many different settings are kept ready; beyond, those no connection uses are dropped.
const MAX_READY: usize = 1024;

/// Client configurations, made once for each distinct [`TlsSettings`] and shared, with their resumption tickets.
///
/// The system's authorities are read from disk once for each distinct set of extra ones; make a new value to read them
/// again.
pub(crate) struct Configs {
    provider: Arc<CryptoProvider>,
    tickets: Arc<Tickets>,
    ready: Mutex<Ready>,
}

#[derive(Default)]
struct Ready {
    configs: HashMap<TlsSettings, Arc<ClientConfig>>,
    authorities: HashMap<Vec<CertificateDer<'static>>, Arc<dyn ServerCertVerifier>>,
}

impl Configs {
    pub(crate) fn new() -> Self {
        Self { provider: Arc::new(aws_lc_rs::default_provider()), tickets: Arc::default(), ready: Mutex::default() }
    }

    /// The configuration when it is there already.
    pub(crate) fn ready(&self, settings: &TlsSettings) -> Option<Arc<ClientConfig>> {
        self.lock().configs.get(settings).cloned()
    }

    /// The configuration, made now if need be. Reads files: not for an async thread.
    pub(crate) fn make(&self, settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsProblem> {
        let mut ready = self.lock();
        if let Some(config) = ready.configs.get(settings) {
            return Ok(config.clone());
        }
        let trust = if settings.pins.is_empty() {
            Trust::Authorities(self.authorities(&mut ready, &settings.roots)?)
        } else {
            Trust::Pins(settings.pins.clone())
        };
        let versions: &[_] = match settings.minimum_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| TlsProblem::Other { text: error.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(trust, &self.provider)))
            .with_no_client_auth();
        config.resumption = Resumption::store(Arc::new(self.tickets.of_new_configuration()));
        let config = Arc::new(config);
        if ready.configs.len() >= MAX_READY {
            ready.configs.retain(|_, config| Arc::strong_count(config) > 1);
            ready.authorities.retain(|_, authorities| Arc::strong_count(authorities) > 1);
        }
        ready.configs.insert(settings.clone(), config.clone());
        Ok(config)
    }

    fn authorities(
        &self,
        ready: &mut Ready,
        extra: &[CertificateDer<'static>],
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsProblem> {
        if let Some(authorities) = ready.authorities.get(extra) {
            return Ok(authorities.clone());
        }
        let made = rustls_platform_verifier::Verifier::new_with_extra_roots(extra.to_vec(), self.provider.clone())
            .map_err(|error| match error {
                rustls::Error::General(_) => TlsProblem::NoRoots,
                error => TlsProblem::Roots { text: error.to_string() },
            })?;
        let authorities: Arc<dyn ServerCertVerifier> = Arc::new(made);
        ready.authorities.insert(extra.to_vec(), authorities.clone());
        Ok(authorities)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ready> {
        // What a panicking thread leaves behind is a cache that lacks an entry.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pin;

    #[test]
    fn equal_settings_share_one_configuration_and_others_do_not() {
        let configs = Configs::new();
        let pinned = |octet| TlsSettings { pins: vec![Pin([octet; 32])], ..TlsSettings::default() };
        let one = configs.make(&pinned(1)).unwrap();
        assert!(Arc::ptr_eq(&one, &configs.make(&pinned(1)).unwrap()));
        assert!(Arc::ptr_eq(&one, &configs.ready(&pinned(1)).unwrap()));
        assert!(!Arc::ptr_eq(&one, &configs.make(&pinned(2)).unwrap()));
        assert!(configs.ready(&pinned(3)).is_none());
    }

    #[test]
    fn configurations_that_nobody_uses_do_not_pile_up() {
        let configs = Configs::new();
        for number in 0..2 * MAX_READY {
            let mut pin = [0; 32];
            pin[..8].copy_from_slice(&number.to_be_bytes());
            configs.make(&TlsSettings { pins: vec![Pin(pin)], ..TlsSettings::default() }).unwrap();
        }
        assert!(configs.lock().configs.len() <= MAX_READY);
    }
}
