//! The certificate of the listener, read from disk and read again when it changes. Run beside the listener.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Where the certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate chain as PEM, the listener's own first.
    pub certificate: PathBuf,
    /// Its private key as PEM.
    pub key: PathBuf,
}

/// Whether the listener has a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateState {
    /// None yet, and why. Callers are turned away while they greet.
    Missing(String),
    /// One has been read. It stays in use until a better one can be.
    Loaded,
}

/// Why files are no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// One cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// One is no PEM of its kind.
    #[error("{} holds no PEM of its kind: {source}", path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
        /// What the reader says.
        source: rustls::pki_types::pem::Error,
    },
    /// They do not go together, as while one of them is being replaced.
    #[error("certificate and key do not go together: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The certificate in use, as TLS asks for it.
#[derive(Debug, Default)]
pub struct Current(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the files held when they were last looked at.
type Content = (Vec<u8>, Vec<u8>);

/// Keeps [`Current`] at what the files hold.
#[derive(Debug)]
pub struct Reader {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    content: Option<Content>,
    state: CertificateState,
}

impl Reader {
    /// A reader that has not looked yet.
    pub fn new(files: CertificateFiles, provider: Arc<CryptoProvider>) -> Self {
        let state = CertificateState::Missing("not read yet".to_owned());
        Self { files, provider, current: Arc::default(), content: None, state }
    }

    /// The certificate in use.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current)
    }

    /// Looks at the files once. Returns the state if a certificate was loaded, or is missing for another reason than before.
    pub async fn look(&mut self) -> Option<CertificateState> {
        let state = match self.load().await {
            Ok(false) => return None,
            Ok(true) => {
                tracing::info!(certificate = %self.files.certificate.display(), "the webhook certificate is loaded");
                CertificateState::Loaded
            }
            Err(error) if self.state == CertificateState::Loaded => {
                tracing::warn!(%error, "the webhook certificate cannot be replaced, the old one stays in use");
                return None;
            }
            Err(error) => {
                let state = CertificateState::Missing(error.to_string());
                if state == self.state {
                    return None;
                }
                tracing::warn!(%error, "there is no webhook certificate yet");
                state
            }
        };
        self.state = state.clone();
        Some(state)
    }

    /// Takes what the files hold into use, if that is new; says whether it was.
    async fn load(&mut self) -> Result<bool, CertificateError> {
        let CertificateFiles { certificate, key } = &self.files;
        let content = (read(certificate).await?, read(key).await?);
        if self.content.as_ref() == Some(&content) {
            return Ok(false);
        }
        let not_pem = |path: &Path| {
            let path = path.to_owned();
            move |source| CertificateError::NotPem { path, source }
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&content.0).collect::<Result<_, _>>().map_err(not_pem(certificate))?;
        if chain.is_empty() {
            return Err(not_pem(certificate)(rustls::pki_types::pem::Error::NoItemsFound));
        }
        let private = PrivateKeyDer::from_pem_slice(&content.1).map_err(not_pem(key))?;
        let certified = CertifiedKey::from_der(chain, private, &self.provider)?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        self.content = Some(content);
        Ok(true)
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    tokio::fs::read(path).await.map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn files(&self) -> CertificateFiles {
            CertificateFiles { certificate: self.0.path().join("tls.crt"), key: self.0.path().join("tls.key") }
        }

        fn write(&self, certificate: &str, key: &str) {
            let files = self.files();
            std::fs::write(files.certificate, certificate).unwrap();
            std::fs::write(files.key, key).unwrap();
        }
    }

    fn made() -> (String, String, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["webhook".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().clone())
    }

    fn in_use(reader: &Reader) -> Option<CertificateDer<'static>> {
        let current = reader.current.0.read().unwrap().clone();
        current.map(|key| key.cert[0].clone())
    }

    fn reader(folder: &Folder) -> Reader {
        Reader::new(folder.files(), Arc::new(rustls::crypto::ring::default_provider()))
    }

    #[tokio::test]
    async fn missing_files_are_waited_for() {
        let folder = Folder::new();
        let mut reader = reader(&folder);
        let Some(CertificateState::Missing(reason)) = reader.look().await else { panic!("no reason") };
        assert!(reason.contains("tls.crt"), "{reason}");
        assert_eq!((reader.look().await, in_use(&reader)), (None, None));

        let (certificate, key, der) = made();
        folder.write(&certificate, &key);
        assert_eq!(reader.look().await, Some(CertificateState::Loaded));
        assert_eq!((reader.look().await, in_use(&reader)), (None, Some(der)));
    }

    #[tokio::test]
    async fn a_new_certificate_replaces_the_old_one() {
        let folder = Folder::new();
        let mut reader = reader(&folder);
        for _ in 0..2 {
            let (certificate, key, der) = made();
            folder.write(&certificate, &key);
            assert_eq!(reader.look().await, Some(CertificateState::Loaded));
            assert_eq!(in_use(&reader), Some(der));
        }
    }

    #[tokio::test]
    async fn a_half_written_pair_leaves_the_old_one_in_use() {
        let folder = Folder::new();
        let mut reader = reader(&folder);
        let (certificate, key, old) = made();
        folder.write(&certificate, &key);
        reader.look().await;

        let (new_certificate, new_key, new) = made();
        for (certificate, key) in [(&new_certificate[..], &key[..]), ("", &new_key), (&new_certificate, "garbage")] {
            folder.write(certificate, key);
            assert_eq!((reader.look().await, in_use(&reader).as_ref()), (None, Some(&old)));
        }
        std::fs::remove_file(folder.files().key).unwrap();
        assert_eq!((reader.look().await, in_use(&reader).as_ref()), (None, Some(&old)));

        folder.write(&new_certificate, &new_key);
        reader.look().await;
        assert_eq!(in_use(&reader), Some(new));
    }
}
