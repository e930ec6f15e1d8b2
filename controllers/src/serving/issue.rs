//! Makes authorities and certificates.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::plan::Service;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// How long a certificate is good. It is renewed after two thirds of that.
const CERTIFICATE_DAYS: i32 = 366;

/// The same of an authority. Its last third is longer than the life of a certificate, so it outlives all that it signed.
const AUTHORITY_DAYS: i32 = 3660;

/// Clocks of others may be behind by that.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// An authority or a certificate, as PEM, and when to make the next one.
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) renewal: Timestamp,
}

/// Makes an authority.
pub(super) fn authority(now: Timestamp) -> Result<Made, Error> {
    let mut params = authority_params()?;
    let renewal = limit(&mut params, now, AUTHORITY_DAYS);
    let key = KeyPair::generate()?;
    Ok(Made { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem(), renewal })
}

/// Makes a certificate for the names of a Service, signed with the key of an authority.
pub(super) fn certificate(service: &Service, authority_key: &str, now: Timestamp) -> Result<Made, Error> {
    let issuer = Issuer::new(authority_params()?, KeyPair::from_pem(authority_key)?);
    let names = ["svc", "svc.cluster.local"].map(|zone| format!("{}.{}.{zone}", service.name, service.namespace));
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "ipam-in-cluster webhooks");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let renewal = limit(&mut params, now, CERTIFICATE_DAYS);
    let key = KeyPair::generate()?;
    Ok(Made { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem(), renewal })
}

/// What is the same in every authority, so that its key alone is enough to sign.
fn authority_params() -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "ipam-in-cluster webhook authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Makes it good for `days` from now on; returns when to renew it.
fn limit(params: &mut CertificateParams, now: Timestamp, days: i32) -> Timestamp {
    let epoch = date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| epoch + Duration::from_secs(time.as_second().unsigned_abs());
    params.not_before = at(now - BACKDATED);
    params.not_after = at(now + DAY * days);
    now + DAY * (days * 2 / 3)
}

/// The authorities to trust after a renewal: the new one, and the one before it.
pub(super) fn bundle(new: &str, earlier: Option<&str>) -> String {
    const END: &str = "-----END CERTIFICATE-----\n";
    let first = earlier.and_then(|earlier| earlier.split_inclusive(END).next()).unwrap_or_default();
    format!("{new}{first}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, UnixTime};

    use super::*;

    const NAMES: [&str; 2] = ["webhooks.system.svc", "webhooks.system.svc.cluster.local"];

    fn service() -> Service {
        Service { namespace: "system".to_owned(), name: "webhooks".to_owned() }
    }

    fn start() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    /// Whether somebody who trusts `bundle` accepts `certificate` for `name` at that time.
    fn verifies(bundle: &str, certificate: &str, name: &str, now: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().unsigned_abs()));
        let name = name.to_owned().try_into().unwrap();
        verifier.verify_server_cert(&certificate, &[], &name, &[], now).is_ok()
    }

    #[test]
    fn a_certificate_is_good_for_the_names_of_its_service_for_a_year() {
        let authority = authority(start()).unwrap();
        let made = certificate(&service(), &authority.key, start()).unwrap();
        for name in NAMES {
            for (days, expected) in [(0, true), (365, true), (367, false)] {
                let found = verifies(&authority.certificate, &made.certificate, name, start() + DAY * days);
                assert_eq!(found, expected, "{name} after {days} days");
            }
        }
        assert!(!verifies(&authority.certificate, &made.certificate, "others.system.svc", start()));
        let stranger = super::authority(start()).unwrap();
        assert!(!verifies(&stranger.certificate, &made.certificate, NAMES[0], start()));
        assert_eq!(made.renewal, start() + DAY * 244);
    }

    #[test]
    fn renewals_are_accepted_by_whoever_trusts_the_bundle_and_authorities_outlive_what_they_signed() {
        let first = authority(start()).unwrap();
        assert_eq!(bundle(&first.certificate, None), first.certificate);
        // The last certificate before the authority is renewed.
        let late = certificate(&service(), &first.key, first.renewal).unwrap();
        let second = authority(first.renewal).unwrap();
        let both = bundle(&second.certificate, Some(&first.certificate));
        assert!(verifies(&both, &late.certificate, NAMES[0], late.renewal));
        let next = certificate(&service(), &second.key, late.renewal).unwrap();
        assert!(verifies(&both, &next.certificate, NAMES[0], late.renewal));

        let third = authority(second.renewal).unwrap();
        assert_eq!(bundle(&third.certificate, Some(&both)), format!("{}{}", third.certificate, second.certificate));
    }
}
