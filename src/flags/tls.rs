//! TLS versions and cipher suites by Go's names.

use controllers::config::TlsSettings;
use rustls::CipherSuite;

/// The suites of TLS 1.2 that we can offer. Go has two names for the last two.
const OFFERED: [(&str, CipherSuite); 8] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// The suites of TLS 1.3: always on, in Go as here.
const ALWAYS: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Suites that Go knows and that we do not offer: no forward secrecy, CBC, RC4 or 3DES.
const UNSUPPORTED: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// Reads both flags. What is known but cannot be had is warned about.
pub(super) fn settings(min_version: &str, cipher_suites: &str, warnings: &mut Vec<String>) -> Result<TlsSettings, String> {
    let only_tls13 = match min_version {
        "VersionTLS13" => true,
        "VersionTLS12" | "" => false,
        "VersionTLS10" | "VersionTLS11" => {
            warnings.push(format!("--tls-min-version={min_version} is raised to VersionTLS12"));
            false
        }
        other => return Err(format!("--tls-min-version: there is no {other}; write VersionTLS12 or VersionTLS13")),
    };
    let mut suites = Vec::new();
    let names: Vec<&str> = cipher_suites.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    for name in &names {
        if let Some((_, suite)) = OFFERED.iter().find(|(offered, _)| offered == name) {
            suites.push(*suite);
        } else if UNSUPPORTED.contains(name) {
            warnings.push(format!("--tls-cipher-suites: {name} is not supported and left out"));
        } else if !ALWAYS.contains(name) {
            return Err(format!("--tls-cipher-suites: there is no suite {name}"));
        }
    }
    Ok(TlsSettings { only_tls13, tls12_suites: (!names.is_empty()).then_some(suites) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_below_1_2_are_raised_with_a_warning() {
        for (version, only_tls13, warned) in [
            ("", false, 0),
            ("VersionTLS12", false, 0),
            ("VersionTLS13", true, 0),
            ("VersionTLS10", false, 1),
            ("VersionTLS11", false, 1),
        ] {
            let mut warnings = Vec::new();
            let settings = settings(version, "", &mut warnings).unwrap();
            assert_eq!((settings.only_tls13, settings.tls12_suites, warnings.len()), (only_tls13, None, warned), "{version}");
        }
        settings("VersionTLS14", "", &mut Vec::new()).unwrap_err();
    }

    #[test]
    fn suites_are_offered_warned_about_or_refused() {
        let mut warnings = Vec::new();
        let text = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA";
        let read = settings("", text, &mut warnings).unwrap();
        assert_eq!(read.tls12_suites, Some(vec![CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]));
        assert_eq!(warnings, ["--tls-cipher-suites: TLS_RSA_WITH_AES_128_CBC_SHA is not supported and left out"]);
        assert!(settings("", "TLS_MAGIC", &mut warnings).unwrap_err().contains("TLS_MAGIC"));
    }

    #[test]
    fn a_list_without_a_suite_of_tls_1_2_leaves_tls_1_3() {
        let read = settings("", "TLS_AES_128_GCM_SHA256", &mut Vec::new()).unwrap();
        assert_eq!(read.tls12_suites, Some(Vec::new()));
    }
}
