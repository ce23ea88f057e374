//! TLS with PostgreSQL, as the connection string asks for it.
//!
//! As in libpq, `prefer` and `require` encrypt **without verifying the server**, except that `require` with a root
//! certificate verifies as `verify-ca` does. Over a network that is not your own, use `sslmode=verify-full`.
//! <https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION>

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, ErrorKind};

/// How TLS is done, if it is done. Files are named here, and read by [`connector`](Tls::connector).
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(super) proof: Proof,
    pub(super) roots: Roots,
    /// A PEM file of certificate revocation lists.
    pub(super) revoked: Option<String>,
    pub(super) client: Option<ClientCertificate>,
    /// TLS begins at once, without PostgreSQL's question for it (17 and newer).
    pub(super) direct: bool,
    /// Whether the handshake names the host (SNI).
    pub(super) send_name: bool,
    /// The oldest and the newest version.
    pub(super) versions: (TlsVersion, TlsVersion),
}

/// How far the server's certificate is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Proof {
    /// Not at all.
    None,
    /// It comes from a known authority (`verify-ca`).
    Authority,
    /// And it is for this host (`verify-full`).
    Host,
}

/// The authorities that a certificate may come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Roots {
    /// Those that the machine trusts.
    System,
    /// Those of a PEM file.
    File(String),
}

/// PEM files by which the server knows the client.
#[derive(Clone)]
pub(super) struct ClientCertificate {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum TlsVersion {
    V12,
    V13,
}

impl Tls {
    /// Encrypts without verifying the server.
    pub(super) fn unverified(direct: bool) -> Self {
        Self {
            proof: Proof::None,
            roots: Roots::System,
            revoked: None,
            client: None,
            direct,
            send_name: true,
            versions: (TlsVersion::V12, TlsVersion::V13),
        }
    }

    /// What the pool and the listener do TLS with. The driver's configuration says whether they do.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a file cannot be read, or no authority is known.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self.proof {
            Proof::None => Arc::new(Unverified(Arc::clone(&provider))),
            Proof::Authority => Arc::new(AnyHost(self.authorities(&provider)?)),
            Proof::Host => self.authorities(&provider)?,
        };
        let versions: Vec<&'static SupportedProtocolVersion> =
            [(TlsVersion::V12, &TLS12), (TlsVersion::V13, &TLS13)]
                .into_iter()
                .filter(|(version, _)| (self.versions.0..=self.versions.1).contains(version))
                .map(|(_, version)| version)
                .collect();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| tls_fault("TLS cannot be set up; look at its cause").with_source(error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.client {
            Some(client) => client.read().and_then(|(chain, key)| {
                config.with_client_auth_cert(chain, key).map_err(|error| {
                    tls_fault(
                        "the key in sslkey does not belong to the certificate in sslcert; correct the paths",
                    )
                    .with_source(error)
                })
            })?,
            None => config.with_no_client_auth(),
        };
        config.enable_sni = self.send_name;
        if self.direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(MakeRustlsConnect::new(config))
    }

    fn authorities(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let mut roots = RootCertStore::empty();
        match &self.roots {
            Roots::File(path) => {
                for certificate in read_all::<CertificateDer<'_>>(path, "sslrootcert", "certificates")? {
                    roots
                        .add(certificate)
                        .map_err(|error| unreadable("sslrootcert", "certificates").with_source(error))?;
                }
            }
            Roots::System => {
                // Some of the machine's certificates may be unusable; what matters is that there are some.
                let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let mut verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        if let Some(path) = &self.revoked {
            let lists = read_all::<CertificateRevocationListDer<'_>>(path, "sslcrl", "revocation lists")?;
            verifier = verifier.with_crls(lists);
        }
        verifier.build().map_err(|error| {
            tls_fault("there is no authority to verify the server with; name a PEM file in sslrootcert")
                .with_source(error)
        })
    }
}

impl ClientCertificate {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let chain = read_all::<CertificateDer<'_>>(&self.certificate, "sslcert", "certificates")?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| {
            tls_fault("the file in sslkey cannot be read as a PEM key without a passphrase; correct the path, or decrypt it")
                .with_source(error.to_string())
        })?;
        Ok((chain, key))
    }
}

/// Everything of one kind in a PEM file, which must have some.
fn read_all<T: PemObject>(path: &str, setting: &str, kind: &str) -> Result<Vec<T>, Error> {
    let read = T::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(setting, kind).with_source(error.to_string()))?;
    if read.is_empty() { Err(unreadable(setting, kind)) } else { Ok(read) }
}

fn unreadable(setting: &str, kind: &str) -> Error {
    tls_fault(&format!("the file in {setting} cannot be read as PEM {kind}; correct the path"))
}

fn tls_fault(message: &str) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// `prefer` and `require`: encrypts without verifying the server.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca`: a certificate of a known authority, for any host.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is checked last, after the chain, its dates and its purpose.
        match self.0.verify_server_cert(certificate, intermediates, host, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
