//! TLS with PostgreSQL, as the connection string asks for it.
//!
//! As in libpq, `prefer` and `require` encrypt **without verifying the server**, except that `require` with a root
//! certificate verifies as `verify-ca` does. Over a network that is not your own, use `sslmode=verify-full`.
//! <https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION>

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::ParsedCertificate;
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
    /// [`ErrorKind::Config`] if a file cannot be read, others can read the key, or no authority is known.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self.proof {
            Proof::None => Arc::new(Unverified(Arc::clone(&provider))),
            Proof::Authority | Proof::Host => Arc::new(self.authorities(&provider)?),
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
                    let message = if is_old(&error) {
                        "the certificate in sslcert is of X.509 version 1; make one of version 3 (openssl x509: -extfile)"
                    } else {
                        "the key in sslkey does not belong to the certificate in sslcert; correct the paths"
                    };
                    tls_fault(message).with_source(error)
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

    fn authorities(&self, provider: &Arc<CryptoProvider>) -> Result<Verified, Error> {
        let mut roots = RootCertStore::empty();
        let mut named = Vec::new();
        match &self.roots {
            Roots::File(path) => {
                named = read_all::<CertificateDer<'_>>(path, "sslrootcert", "certificates")?;
                for certificate in &named {
                    roots
                        .add(certificate.clone())
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
        let authorities = verifier.build().map_err(|error| {
            tls_fault("there is no authority to verify the server with; name a PEM file in sslrootcert")
                .with_source(error)
        })?;
        Ok(Verified { authorities, named, any_host: self.proof == Proof::Authority })
    }
}

impl ClientCertificate {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let chain = read_all::<CertificateDer<'_>>(&self.certificate, "sslcert", "certificates")?;
        // A path that cannot be looked at is an error of the reader.
        if std::fs::metadata(&self.key).is_ok_and(|about| is_readable_by_others(&about)) {
            let message = format!(
                "others can read the key file {}, so it is not used; run: chmod 0600 {0} (0640 if root owns it)",
                self.key
            );
            return Err(tls_fault(&message));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| {
            tls_fault("the file in sslkey cannot be read as a PEM key without a passphrase; correct the path, or decrypt it")
                .with_source(error.to_string())
        })?;
        Ok((chain, key))
    }
}

/// As libpq has it: only its owner reads a key. The group may, too, if the owner is root.
#[cfg(unix)]
fn is_readable_by_others(about: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let forbidden = if about.uid() == 0 { 0o027 } else { 0o077 };
    about.is_file() && about.mode() & forbidden != 0
}

#[cfg(not(unix))]
fn is_readable_by_others(_: &std::fs::Metadata) -> bool {
    false
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

/// Whether a certificate is of X.509 version 1. The type is of a crate that is not ours to depend on.
fn is_old(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    other.to_string() == "UnsupportedCertVersion"
}

/// What the two sides' settings are to blame for, not the network: the TLS library's own error, which the driver
/// wraps in an `io::Error`, or a server without TLS, which the driver tells only by its text.
pub(super) fn explain(error: &tokio_postgres::Error) -> Option<(&'static str, String)> {
    let cause = std::error::Error::source(error)?;
    if cause.to_string() == "server does not support TLS" {
        let message = "the server does not offer TLS; turn it on there (ssl = on); use sslmode=disable only in a network \
                       that you trust";
        return Some((message, cause.to_string()));
    }
    let own = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let message = match own.and_then(<dyn std::error::Error + Send + Sync>::downcast_ref)? {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "the server's certificate is for another host; connect by a name in its subjectAltName (its CN does not count), or \
             use sslmode=verify-ca with sslrootcert"
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is of an authority that is not known; name its file in sslrootcert"
        }
        error if is_old(error) => {
            "the server's certificate is of X.509 version 1; make one of version 3, with the host in its subjectAltName \
             (openssl x509: -extfile)"
        }
        rustls::Error::InvalidCertificate(_) => {
            "the server's certificate is not accepted; look at the cause, sslrootcert and sslcrl"
        }
        _ => {
            "TLS with PostgreSQL failed, see the cause; compare the server's settings with sslmode, sslcert and sslrootcert; the \
             server needs TLS 1.2 or 1.3, and a key of the kind RSA, P-256, P-384 or Ed25519"
        }
    };
    Some((message, cause.to_string()))
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
        let algorithms = &self.0.signature_verification_algorithms;
        match rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms) {
            // Nothing in the certificate is trusted but that the server has its key.
            Err(error) if is_old(&error) => {
                let key = public_key(certificate).ok_or(error)?;
                let key = SubjectPublicKeyInfoDer::from(key);
                rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
            }
            verdict => verdict,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify-ca` and `verify-full`: a certificate of a known authority, or one that `sslrootcert` names itself.
#[derive(Debug)]
struct Verified {
    authorities: Arc<WebPkiServerVerifier>,
    /// The certificates in the file of `sslrootcert`.
    named: Vec<CertificateDer<'static>>,
    any_host: bool,
}

impl Verified {
    /// Whether the server's own certificate is in the file of `sslrootcert`, and refused only because it is an authority's:
    /// PostgreSQL's documentation makes a self-signed certificate so. The dates have been checked by then.
    fn is_named(&self, certificate: &CertificateDer<'_>, error: &rustls::Error) -> bool {
        let rustls::Error::InvalidCertificate(CertificateError::Other(cause)) = error else { return false };
        // The type is of a crate that is not ours to depend on.
        cause.to_string() == "CaUsedAsEndEntity" && self.named.iter().any(|named| named == certificate)
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is checked last, after the chain, its dates and its purpose.
        match self.authorities.verify_server_cert(certificate, intermediates, host, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_host => Ok(ServerCertVerified::assertion()),
            Err(error) if self.is_named(certificate, &error) => {
                if !self.any_host {
                    verify_server_name(&ParsedCertificate::try_from(certificate)?, host)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// The public key (SubjectPublicKeyInfo, RFC 5280) of a certificate of version 1, which has no field for its version.
fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (signed, _) = content(certificate)?;
    let (mut fields, _) = content(signed)?;
    // Serial number, algorithm, issuer, validity and subject.
    for _ in 0..5 {
        fields = content(fields)?.1;
    }
    let (_, after) = content(fields)?;
    fields.get(..fields.len() - after.len())
}

/// The content of the first DER element, and what follows the element.
fn content(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => {
            let (bytes, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*bytes)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_in_a_certificate_that_is_cut_anywhere() {
        let pem = include_bytes!("../../tests/it/version_1.pem");
        let certificate = CertificateDer::from_pem_slice(pem).unwrap();
        let key = public_key(&certificate).expect("a key");
        // An uncompressed point of the curve P-256.
        assert_eq!((key.len(), key.first()), (91, Some(&0x30)));
        for end in 0..certificate.len() {
            assert_eq!(public_key(certificate.get(..end).unwrap()), None, "{end}");
        }
    }
}
