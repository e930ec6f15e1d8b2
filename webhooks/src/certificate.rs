//! The certificate of the listener, taken up again when it changes. Run beside the listener.

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

/// Hands out a certificate that is kept elsewhere than in files.
pub trait CertificateKeeper: std::fmt::Debug + Send + Sync {
    /// Certificate chain and private key as PEM, if there are any yet.
    fn pem(&self) -> Option<(Vec<u8>, Vec<u8>)>;
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// From files, which somebody else writes.
    Files(CertificateFiles),
    /// From the process itself.
    Keeper(Arc<dyn CertificateKeeper>),
}

/// Whether the listener has a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateState {
    /// None yet, and why. Callers are turned away while they greet.
    Missing(String),
    /// One has been read. It stays in use until a better one can be.
    Loaded,
}

/// Why there is no certificate, or none that can be used.
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
    /// It has not been made yet.
    #[error("it has not been made yet")]
    NotMade,
    /// A half of it is no PEM of its kind.
    #[error("{half} is no PEM of its kind: {source}")]
    NotPem {
        /// Which: a file's name, or what it is.
        half: String,
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

/// Certificate and key when they were last looked at.
type Content = (Vec<u8>, Vec<u8>);

impl CertificateSource {
    async fn content(&self) -> Result<Content, CertificateError> {
        match self {
            Self::Files(files) => Ok((read(&files.certificate).await?, read(&files.key).await?)),
            Self::Keeper(keeper) => keeper.pem().ok_or(CertificateError::NotMade),
        }
    }

    /// What to call certificate and key in messages.
    fn halves(&self) -> [String; 2] {
        match self {
            Self::Files(files) => [files.certificate.display().to_string(), files.key.display().to_string()],
            Self::Keeper(_) => ["the certificate".to_owned(), "its key".to_owned()],
        }
    }
}

/// Keeps [`Current`] at what the source holds.
#[derive(Debug)]
pub struct Reader {
    source: CertificateSource,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    content: Option<Content>,
    state: CertificateState,
}

impl Reader {
    /// A reader that has not looked yet.
    pub fn new(source: CertificateSource, provider: Arc<CryptoProvider>) -> Self {
        let state = CertificateState::Missing("not read yet".to_owned());
        Self { source, provider, current: Arc::default(), content: None, state }
    }

    /// The certificate in use.
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current)
    }

    /// Looks at the source once. Returns the state if a certificate was loaded, or is missing for another reason than before.
    pub async fn look(&mut self) -> Option<CertificateState> {
        let state = match self.load().await {
            Ok(false) => return None,
            Ok(true) => {
                tracing::info!(certificate = self.source.halves()[0], "the webhook certificate is loaded");
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

    /// Takes what the source holds into use, if that is new; says whether it was.
    async fn load(&mut self) -> Result<bool, CertificateError> {
        let content = self.source.content().await?;
        if self.content.as_ref() == Some(&content) {
            return Ok(false);
        }
        let not_pem = |half: String| move |source| CertificateError::NotPem { half, source };
        let [certificate, key] = self.source.halves();
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&content.0).collect::<Result<_, _>>().map_err(not_pem(certificate.clone()))?;
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
        Reader::new(CertificateSource::Files(folder.files()), Arc::new(rustls::crypto::ring::default_provider()))
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
    #[derive(Debug, Default)]
    struct Kept(RwLock<Option<(Vec<u8>, Vec<u8>)>>);

    impl CertificateKeeper for Kept {
        fn pem(&self) -> Option<(Vec<u8>, Vec<u8>)> {
            self.0.read().unwrap().clone()
        }
    }

    #[tokio::test]
    async fn a_certificate_that_the_process_keeps_is_taken_up_when_it_is_made() {
        let kept = Arc::new(Kept::default());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut reader = Reader::new(CertificateSource::Keeper(kept.clone()), provider);
        assert_eq!(reader.look().await, Some(CertificateState::Missing("it has not been made yet".to_owned())));
        for _ in 0..2 {
            let (certificate, key, der) = made();
            *kept.0.write().unwrap() = Some((certificate.into_bytes(), key.into_bytes()));
            assert_eq!(reader.look().await, Some(CertificateState::Loaded));
            assert_eq!((reader.look().await, in_use(&reader)), (None, Some(der)));
        }
    }
}
