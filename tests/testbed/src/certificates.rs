//! An authority of one control plane's own, and the certificates that it signs for listeners on loopback.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

/// Signs certificates. Nobody outside the control plane trusts it.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn create() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for the loopback address.
    pub(crate) fn issue(&self) -> Result<Issued> {
        self.issue_for(&["127.0.0.1", "localhost"])
    }

    /// A certificate for these names and addresses.
    pub(crate) fn issue_for(&self, names: &[&str]) -> Result<Issued> {
        self.sign(&CertificateParams::new(owned(names))?)
    }

    /// A certificate that nobody accepts any more.
    pub(crate) fn issue_expired(&self, names: &[&str]) -> Result<Issued> {
        let mut params = CertificateParams::new(owned(names))?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
