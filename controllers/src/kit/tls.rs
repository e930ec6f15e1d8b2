//! What TLS listeners of ours offer, from the settings to rustls' terms. Called by whoever listens.

use std::sync::Arc;

use rustls::{
    CipherSuite, ConfigBuilder, ServerConfig, WantsVerifier,
    crypto::{CryptoProvider, ring},
    version::TLS13,
};

use crate::config::TlsSettings;

impl TlsSettings {
    /// The beginning of a listener's configuration; its certificate is still to be named.
    pub fn offer(&self) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
        let mut provider = ring::default_provider();
        if let Some(suites) = &self.tls12_suites {
            provider.cipher_suites.retain(|suite| is_tls13(suite.suite()) || suites.contains(&suite.suite()));
        }
        let only_tls13 = self.only_tls13 || !has_tls12(&provider);
        let versions: &[_] = if only_tls13 { &[&TLS13] } else { rustls::ALL_VERSIONS };
        ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions)
    }
}

fn is_tls13(suite: CipherSuite) -> bool {
    [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256]
        .contains(&suite)
}

fn has_tls12(provider: &CryptoProvider) -> bool {
    provider.cipher_suites.iter().any(|suite| !is_tls13(suite.suite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_narrow_what_is_offered() {
        let suite = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
        let offered = |settings: TlsSettings| {
            let offer = settings.offer().unwrap();
            let suites = &offer.crypto_provider().cipher_suites;
            suites.iter().map(rustls::SupportedCipherSuite::suite).filter(|suite| !is_tls13(*suite)).collect::<Vec<_>>()
        };
        assert_eq!(offered(TlsSettings::default()).len(), 6);
        assert_eq!(offered(TlsSettings { tls12_suites: Some(vec![suite]), only_tls13: false }), [suite]);
        assert_eq!(offered(TlsSettings { tls12_suites: Some(vec![]), only_tls13: false }), []);
    }
}
