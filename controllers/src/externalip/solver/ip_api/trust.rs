//! Whose certificates are believed: the platform's authorities, those of a flag, and those of a source for its own service alone.
//! Asked by `ip_api` for each request.

use std::{error::Error, io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::externalip::{
    answers::{Failure, FailureKind},
    solver::failure,
};

/// Why nobody can be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The additional authorities cannot be read.
    #[error("the certificates of additional authorities cannot be used: {0}")]
    Authorities(String),
    /// The TLS library has no protocol to offer.
    #[error("TLS cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// The authorities that every request believes.
#[derive(Debug)]
pub(super) struct Trust {
    roots: RootCertStore,
    config: ClientConfig,
}

impl Trust {
    /// The platform's authorities and those of this PEM.
    pub(super) fn new(pem: Option<&[u8]>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let platform = rustls_native_certs::load_native_certs();
        for error in &platform.errors {
            tracing::warn!(%error, "some of the platform's trust roots cannot be read");
        }
        // A platform may bring certificates along that nobody can use.
        roots.add_parsable_certificates(platform.certs);
        if let Some(pem) = pem {
            add(&mut roots, pem).map_err(TrustError::Authorities)?;
        }
        let config = config(roots.clone())?;
        Ok(Self { roots, config })
    }

    /// What a request is made with that also believes these authorities.
    pub(super) fn config(&self, ca_bundle: Option<&str>) -> Result<ClientConfig, Failure> {
        let Some(pem) = ca_bundle else { return Ok(self.config.clone()) };
        let mut roots = self.roots.clone();
        add(&mut roots, pem.as_bytes()).map_err(|reason| failure(FailureKind::Tls, format!("caBundle: {reason}")))?;
        config(roots).map_err(|_| failure(FailureKind::Tls, "TLS cannot be used"))
    }
}

fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut any = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "it is no PEM")?;
        roots.add(certificate).map_err(|_| "a certificate in it cannot be read")?;
        any = true;
    }
    if any { Ok(()) } else { Err("there is no certificate in it".to_owned()) }
}

fn config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The error of a handshake inside another one. An I/O error does not name what is inside it as its source, but that one's source.
pub(super) fn inside<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(outer) => inside(outer.get_ref()?),
        None => error.downcast_ref(),
    }
}

/// What is wrong with a handshake, in words of ours.
pub(super) fn reason(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the certificate has expired"
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the certificate is not valid yet"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the certificate is for another name",
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => "the certificate's authority is not trusted",
        rustls::Error::InvalidCertificate(_) => "the certificate is not valid",
        _ => "the TLS handshake failed",
    }
}
