//! Where the server is and how it is trusted: connection strings with libpq's `sslmode`, and the TLS connector.
//!
//! The driver knows `disable`, `prefer` and `require`. libpq's `verify-ca` and `verify-full`, and `sslrootcert`, are
//! taken out of the string here and turned into a verifier. As in libpq, **`prefer`, and `require` without `sslrootcert`,
//! encrypt without verifying whom they talk to**. `require` with a file in `sslrootcert` means `verify-ca`, and
//! `sslrootcert=system` means `verify-full`. Over a network that is not your own, use `sslmode=verify-full`.
//! <https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION>

use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, ErrorKind};

/// A server, and what its certificate must prove.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) config: tokio_postgres::Config,
    proof: Proof,
    /// A PEM file, or `None` for the machine's own authorities.
    root_cert: Option<String>,
}

/// How far the server's certificate is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proof {
    /// Not at all (`prefer`, `require`).
    None,
    /// It comes from a known authority (`verify-ca`).
    Authority,
    /// And it is for this host (`verify-full`).
    Host,
}

impl From<tokio_postgres::Config> for Server {
    fn from(config: tokio_postgres::Config) -> Self {
        Self { config, proof: Proof::None, root_cert: None }
    }
}

impl Server {
    /// # Errors
    /// [`ErrorKind::Config`]; neither message nor source repeats the string, which may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let mut proof = Proof::None;
        let mut root_cert = None;
        let (mut mode, mut system) = (None, false);
        let rest = rewrite(url, |key, value| match (key, value) {
            ("sslmode", "verify-ca") => {
                mode = Some("verify-ca");
                proof = Proof::Authority;
                Some("sslmode=require")
            }
            ("sslmode", "verify-full") => {
                mode = Some("verify-full");
                proof = Proof::Host;
                Some("sslmode=require")
            }
            ("sslmode", "require") => {
                mode = Some("require");
                proof = Proof::None;
                None
            }
            ("sslmode", _) => {
                mode = Some("weaker");
                proof = Proof::None;
                None
            }
            ("sslrootcert", path) => {
                system = path == "system";
                root_cert = (!system && !path.is_empty()).then(|| path.to_owned());
                Some("")
            }
            _ => None,
        });
        // As libpq does.
        let is_encrypted = match (mode, system, &root_cert) {
            (None | Some("verify-full"), true, _) => {
                proof = Proof::Host;
                true
            }
            (Some(_), true, _) => {
                return Err(tls_fault(
                    "sslrootcert=system needs sslmode=verify-full, because anyone can have a certificate of a public \
                     authority; set sslmode=verify-full or leave it out",
                ));
            }
            (Some("require"), false, Some(_)) => {
                proof = Proof::Authority;
                true
            }
            _ => false,
        };
        let mut config = tokio_postgres::Config::from_str(&rest).map_err(|error| {
            let mut cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            // The driver quotes the option, which is the rest of the password if that has a space and no quotes.
            if cause.starts_with("unknown option") {
                "unknown option".clone_into(&mut cause);
            }
            Error::new(
                ErrorKind::Config,
                "the connection string does not parse; write it as postgres://user:password@host:5432/database",
            )
            .with_source(cause)
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "the connection string names no host; write it as postgres://user:password@host:5432/database",
            ));
        }
        if is_encrypted {
            config.ssl_mode(SslMode::Require);
        }
        Ok(Self { config, proof, root_cert })
    }

    /// The same proof, on another way. A way that must be proved is never plain text.
    pub(crate) fn reached_by(&self, mut config: tokio_postgres::Config) -> Self {
        if self.proof != Proof::None {
            config.ssl_mode(SslMode::Require);
        }
        Self { config, ..self.clone() }
    }

    /// What a cancel request of an application's pool does TLS with, whose own connector is not known. The request carries
    /// nothing but a number that is worth one cancellation.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if TLS cannot be set up.
    pub(crate) fn unverified() -> Result<MakeRustlsConnect, Error> {
        Self::from(tokio_postgres::Config::new()).connector()
    }

    /// What the pool and the listener do TLS with. Whether they do is `sslmode` in the configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no authority to verify with can be read.
    pub(crate) fn connector(&self) -> Result<MakeRustlsConnect, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self.proof {
            Proof::None => Arc::new(Unverified(Arc::clone(&provider))),
            Proof::Authority => Arc::new(AnyHost(self.authorities(&provider)?)),
            Proof::Host => self.authorities(&provider)?,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls_fault("TLS cannot be set up").with_source(error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }

    fn authorities(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let mut roots = RootCertStore::empty();
        match &self.root_cert {
            Some(path) => {
                let unreadable = || {
                    tls_fault("the file in sslrootcert cannot be read as PEM certificates; correct the path")
                };
                let certificates = CertificateDer::pem_file_iter(path)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(|error| unreadable().with_source(error.to_string()))?;
                for certificate in certificates {
                    roots.add(certificate).map_err(|error| unreadable().with_source(error))?;
                }
            }
            None => {
                // Some of the machine's certificates may be unusable; what matters is that there are some.
                let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().map_err(
            |error| {
                tls_fault("there is no authority to verify the server with; name a PEM file in sslrootcert")
                    .with_source(error)
            },
        )
    }
}

fn tls_fault(message: &str) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// Replaces the settings for which `replace` has something, in either form of a connection string.
fn rewrite<'a>(text: &'a str, mut replace: impl FnMut(&str, &str) -> Option<&'a str>) -> String {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        let Some((server, query)) = text.split_once('?') else { return text.to_owned() };
        let kept = query.split('&').filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let value = percent_decode_str(value).decode_utf8_lossy();
            Some(replace(key, &value).unwrap_or(pair))
        });
        let kept: Vec<&str> = kept.filter(|pair| !pair.is_empty()).collect();
        return if kept.is_empty() { server.to_owned() } else { format!("{server}?{}", kept.join("&")) };
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((setting, key, value, after)) = next_setting(rest) {
        let setting = match replace(key, &value) {
            Some(replacement) => replacement.to_owned(),
            None => setting.to_owned(),
        };
        out.push_str(&setting);
        out.push(' ');
        rest = after;
    }
    // What is no setting is left to the driver, who says what is wrong with it.
    out.push_str(rest);
    out
}

/// The first `key = value` of `text`, quoted or not: as written, its key, its value without quotes, and the rest.
fn next_setting(text: &str) -> Option<(&str, &str, String, &str)> {
    let text = text.trim_start();
    let (key, after) = text.split_once('=')?;
    let value_text = after.trim_start();
    let mut value = String::new();
    let mut chars = value_text.char_indices();
    let quoted = value_text.starts_with('\'');
    if quoted {
        chars.next();
    }
    let mut end = value_text.len();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => {
                end = at + 1;
                break;
            }
            space if !quoted && space.is_whitespace() => {
                end = at;
                break;
            }
            other => value.push(other),
        }
    }
    let rest = &value_text[end..];
    let setting = &text[..text.len() - rest.len()];
    Some((setting, key.trim(), value, rest))
}

/// `prefer` and `require`: encrypts, and talks to anybody.
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

/// `verify-ca`: a certificate of a known authority, for whatever host.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verification_is_taken_out_of_both_forms() {
        for text in [
            "postgres://me:secret@db.example:5433/app?connect_timeout=3&sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem",
            "host=db.example port=5433 user=me password=secret dbname=app connect_timeout=3 sslmode=verify-full sslrootcert='/etc/ca.pem'",
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!(
                (server.proof, server.root_cert.as_deref()),
                (Proof::Host, Some("/etc/ca.pem")),
                "{text}"
            );
            assert_eq!(server.config.get_ssl_mode(), SslMode::Require);
            assert_eq!(server.config.get_ports(), [5433]);
            assert_eq!(server.config.get_dbname(), Some("app"));
            assert_eq!(server.config.get_connect_timeout().unwrap().as_secs(), 3);
        }
    }

    #[test]
    fn other_settings_pass_as_they_are() {
        let server = Server::parse("host = db user='o''brien' password='a b\\'c' sslmode=prefer")
            .or_else(|_| Server::parse("host = db user=me password='a b\\'c' sslmode=prefer"))
            .unwrap();
        assert_eq!(server.config.get_password(), Some("a b'c".as_bytes()));
        assert_eq!((server.proof, server.config.get_ssl_mode()), (Proof::None, SslMode::Prefer));
        let server =
            Server::parse("postgres://localhost/app?sslmode=verify-full&sslrootcert=system").unwrap();
        assert_eq!((server.proof, server.root_cert), (Proof::Host, None));
    }

    /// As libpq 16: <https://www.postgresql.org/docs/16/libpq-connect.html#LIBPQ-CONNECT-SSLROOTCERT>.
    #[test]
    fn sslmode_and_sslrootcert_say_together_what_is_verified() {
        let (prefer, require) = (SslMode::Prefer, SslMode::Require);
        for (mode, root, expected) in [
            ("", "", Some((Proof::None, prefer))),
            ("prefer", "", Some((Proof::None, prefer))),
            ("prefer", "/ca.pem", Some((Proof::None, prefer))),
            ("disable", "/ca.pem", Some((Proof::None, SslMode::Disable))),
            ("require", "", Some((Proof::None, require))),
            ("require", "/ca.pem", Some((Proof::Authority, require))),
            ("verify-ca", "", Some((Proof::Authority, require))),
            ("verify-ca", "/ca.pem", Some((Proof::Authority, require))),
            ("verify-full", "", Some((Proof::Host, require))),
            ("verify-full", "/ca.pem", Some((Proof::Host, require))),
            ("", "system", Some((Proof::Host, require))),
            ("verify-full", "system", Some((Proof::Host, require))),
            ("disable", "system", None),
            ("prefer", "system", None),
            ("require", "system", None),
            ("verify-ca", "system", None),
        ] {
            let settings: Vec<String> = [("sslmode", mode), ("sslrootcert", root)]
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            let reversed: Vec<String> = settings.iter().rev().cloned().collect();
            for settings in [settings, reversed] {
                for text in [
                    format!("host=db user=me {}", settings.join(" ")),
                    format!("postgres://me@db/app?{}", settings.join("&")),
                ] {
                    let parsed = Server::parse(&text);
                    let found = parsed.as_ref().map(|server| (server.proof, server.config.get_ssl_mode()));
                    assert_eq!(found.ok(), expected, "{text}");
                    if let Err(error) = parsed {
                        assert!(error.to_string().contains("sslmode=verify-full"), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_listener_beside_a_verified_pool_is_never_plain_text() {
        let pool = Server::parse("host=db sslmode=verify-full").unwrap();
        for mode in ["disable", "prefer", "require"] {
            let config = tokio_postgres::Config::from_str(&format!("host=other sslmode={mode}")).unwrap();
            let listener = pool.reached_by(config);
            assert_eq!((listener.proof, listener.config.get_ssl_mode()), (Proof::Host, SslMode::Require));
        }
    }

    #[test]
    fn a_wrong_string_is_an_error_that_does_not_repeat_it() {
        for text in [
            "",
            "nonsense",
            "postgres://u:hunter2@h:notaport/d",
            "host=h password=hunter2 sslmode=sometimes",
            "user=hunter2",
            "postgres://h/d?sslmod=hunter2",
            "host=h password=my hunter2=x",
        ] {
            let error = Server::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
            assert!(error.to_string().contains("postgres://user:password@host"), "{error}");
        }
    }

    #[test]
    fn an_unreadable_authority_is_an_error_that_says_so() {
        let server =
            Server::parse("postgres://localhost/app?sslmode=verify-full&sslrootcert=/does/not/exist")
                .unwrap();
        let error = server.connector().map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("sslrootcert"), "{error}");
    }
}
