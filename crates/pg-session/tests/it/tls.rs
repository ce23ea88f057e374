//! TLS as the connection string asks for it.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::sync::Arc;

use deadpool_postgres::{Manager, Pool};
use pg_sandbox::Sandbox;
use pg_session::{Error, ErrorKind, SessionManager};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tokio_postgres::Client;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::fixtures::{driver_config, in_time};
use crate::support::{WAIT_MAX, World};

/// An authority, and a server with a certificate of it for `localhost`, not for 127.0.0.1.
pub struct Secured {
    pub sandbox: Sandbox,
    pub authority: CertifiedIssuer<'static, KeyPair>,
}

impl Secured {
    pub fn start() -> Self {
        let authority = authority();
        let (certificate, key) = certificate("localhost", &authority);
        let sandbox = Sandbox::builder()
            .setting("ssl", "on")
            .setting("ssl_ca_file", "root.crt")
            .setting("max_connections", "400")
            .file("server.crt", certificate.pem())
            .file("server.key", key.serialize_pem())
            .file("root.crt", authority.pem())
            .start()
            .unwrap();
        Self { sandbox, authority }
    }
}

pub fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(name: &str, authority: &CertifiedIssuer<'static, KeyPair>) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(7));
    (params.signed_by(&key, authority).unwrap(), key)
}

/// A file that is gone with the test.
pub struct Pem(pub std::path::PathBuf);

impl Pem {
    pub fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pg_session_ca_{}.pem", uuid::Uuid::new_v4().simple()));
        std::fs::write(&path, text).unwrap();
        // It may hold a key.
        let pem = Self(path);
        pem.permit(0o600);
        pem
    }

    fn permit(&self, mode: u32) {
        std::fs::set_permissions(&self.0, PermissionsExt::from_mode(mode)).unwrap();
    }
}

impl Drop for Pem {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A row of the table: what the connection string says, and the server that it leads to.
#[derive(Clone, Copy, Debug)]
struct Case {
    mode: Option<&'static str>,
    roots: Option<&'static str>,
    server: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// The connection string is wrong by itself.
    Invalid,
    /// The server is not good enough.
    Refused,
    Plain,
    Encrypted,
}

const MODES: [Option<&str>; 7] = [
    None,
    Some("disable"),
    Some("allow"),
    Some("prefer"),
    Some("require"),
    Some("verify-ca"),
    Some("verify-full"),
];
const ROOTS: [Option<&str>; 5] = [None, Some("right"), Some("other"), Some("missing"), Some("system")];
const SERVERS: [&str; 3] = ["right host", "wrong host", "without TLS"];

fn cases() -> impl Iterator<Item = Case> {
    MODES.into_iter().flat_map(|mode| {
        ROOTS
            .into_iter()
            .flat_map(move |roots| SERVERS.into_iter().map(move |server| Case { mode, roots, server }))
    })
}

impl Case {
    /// What libpq 16 does, except that it takes a missing file beside `require` for none.
    fn expected(self) -> Outcome {
        let mode = match (self.mode, self.roots) {
            (None, Some("system")) => "verify-full",
            (Some(mode), Some("system")) if mode != "verify-full" => return Outcome::Invalid,
            (Some("verify-ca"), None) => return Outcome::Invalid,
            (mode, _) => mode.unwrap_or("prefer"),
        };
        let is_encrypted = self.server != "without TLS";
        let is_known = is_encrypted && self.roots == Some("right");
        let good = |good: bool| if good { Outcome::Encrypted } else { Outcome::Refused };
        match mode {
            "disable" => Outcome::Plain,
            "allow" | "prefer" if is_encrypted => Outcome::Encrypted,
            "allow" | "prefer" => Outcome::Plain,
            "require" if self.roots.is_none() => good(is_encrypted),
            "require" | "verify-ca" => good(is_known),
            "verify-full" => good(is_known && self.server == "right host"),
            other => panic!("no mode of libpq: {other}"),
        }
    }
}

/// Two servers, and the files that the table's rows name.
struct Table {
    secured: Secured,
    plain: Sandbox,
    right: Pem,
    other: Pem,
}

impl Table {
    fn new() -> Self {
        let secured = Secured::start();
        let plain = Sandbox::builder().setting("max_connections", "400").start().unwrap();
        let (right, other) = (Pem::new(&secured.authority.pem()), Pem::new(&authority().pem()));
        Self { secured, plain, right, other }
    }

    fn sandbox(&self, case: Case) -> &Sandbox {
        if case.server == "without TLS" { &self.plain } else { &self.secured.sandbox }
    }

    fn url(&self, case: Case, name: &str) -> String {
        let host = if case.server == "wrong host" { "127.0.0.1" } else { "localhost" };
        let port = self.sandbox(case).addr().port();
        let mode = case.mode.map(|mode| format!("&sslmode={mode}")).unwrap_or_default();
        let roots = match case.roots {
            Some("right") => format!("&sslrootcert={}", self.right.0.display()),
            Some("other") => format!("&sslrootcert={}", self.other.0.display()),
            Some("missing") => "&sslrootcert=/does/not/exist.pem".to_owned(),
            Some(word) => format!("&sslrootcert={word}"),
            None => String::new(),
        };
        format!("postgres://postgres@{host}:{port}/postgres?application_name={name}{mode}{roots}")
    }
}

/// The connections of this name: how many, and how many of them are encrypted.
async fn connections(client: &Client, name: &str) -> (i64, i64) {
    let statement = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl
                     JOIN pg_stat_activity USING (pid) WHERE application_name = $1";
    let row = client.query_one(statement, &[&name]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslmode_and_sslrootcert_mean_what_libpq_means() {
    let table = Table::new();
    let connect = async |number: usize, case: Case| {
        let world = World::on(table.sandbox(case));
        let name = format!("case_{number}");
        let connected = SessionManager::connect(&table.url(case, &name), world.config()).await;
        let outcome = match &connected {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Config, "{case:?}: {error:?}");
                assert!(error.to_string().contains("ssl"), "{case:?}: {error}");
                if case.expected() == Outcome::Invalid { Outcome::Invalid } else { Outcome::Refused }
            }
            Ok(node) => {
                in_time("the node is trusted", node.wait_until_trusted()).await.unwrap();
                match connections(&world.client().await, &name).await {
                    (all, encrypted) if all >= 2 && all == encrypted => Outcome::Encrypted,
                    (all, 0) if all >= 2 => Outcome::Plain,
                    other => panic!("{case:?}: pool and listener differ: {other:?}"),
                }
            }
        };
        assert_eq!(outcome, case.expected(), "{case:?}: {connected:?}");
        if let Ok(node) = connected {
            assert!(node.shutdown(WAIT_MAX).await.is_complete());
        }
    };
    // Eight at once: most of the time is waiting.
    let cases: Vec<(usize, Case)> = cases().enumerate().collect();
    for some in cases.chunks(8) {
        crate::fixtures::all(some.iter().map(|(number, case)| connect(*number, *case))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listeners_own_connection_string_is_obeyed() {
    let table = Table::new();
    let listen = async |number: usize, case: Case| -> Outcome {
        let world = World::on(table.sandbox(case));
        let name = format!("listener_{number}");
        let mut config = world.config();
        config.query_timeout = std::time::Duration::from_secs(3);
        let builder = SessionManager::builder(config).url(&world.url).unwrap();
        let builder = match builder.listen_on_url(&table.url(case, &name)) {
            Ok(builder) => builder,
            Err(_) => return Outcome::Invalid,
        };
        let connected = builder.connect().await;
        let found = connections(&world.client().await, &name).await;
        match (found, connected) {
            ((1, 1), Ok(node)) if node.status().trusted_for.is_some() => Outcome::Encrypted,
            ((1, 0), Ok(node)) if node.status().trusted_for.is_some() => Outcome::Plain,
            ((0, 0), Ok(node)) if node.status().trusted_for.is_none() => Outcome::Refused,
            ((0, 0), Err(_)) => Outcome::Refused,
            other => panic!("{case:?}: {other:?}"),
        }
    };
    // Eight at once: a listener that is refused tries until `connect` gives up.
    let cases: Vec<(usize, Case)> = cases().enumerate().collect();
    for some in cases.chunks(8) {
        let outcomes = crate::fixtures::all(some.iter().map(|(number, case)| listen(*number, *case))).await;
        for (outcome, (_, case)) in outcomes.into_iter().zip(some) {
            assert_eq!(outcome, case.expected(), "{case:?}");
        }
    }
}

/// As the documentation of PostgreSQL makes one (`openssl req -x509`): an authority that has signed itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_self_signed_certificate_is_accepted_where_it_is_named() {
    let self_signed = |names: &[&str], day: u8| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(if day == 0 { 2002 } else { 4000 }, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    for (names, day, accepted) in [
        (&["localhost"][..], 1, ["verify-ca", "verify-full"].as_slice()),
        (&["elsewhere"], 1, &["verify-ca"]),
        (&[], 1, &["verify-ca"]),
        (&["localhost"], 0, &[]),
    ] {
        let (certificate, key) = self_signed(names, day);
        let sandbox = Sandbox::builder().setting("ssl", "on");
        let sandbox =
            sandbox.file("server.crt", certificate.clone()).file("server.key", key).start().unwrap();
        let world = World::on(&sandbox);
        let (named, other) = (Pem::new(&certificate), Pem::new(&self_signed(names, day).0));
        for mode in ["verify-ca", "verify-full"] {
            let url = |roots: &Pem| {
                let (port, roots) = (sandbox.addr().port(), roots.0.display());
                format!("host=localhost port={port} user=postgres sslmode={mode} sslrootcert={roots}")
            };
            let connected = SessionManager::connect(&url(&named), world.config()).await;
            assert_eq!(connected.is_ok(), accepted.contains(&mode), "{names:?} {mode}: {connected:?}");
            let error = SessionManager::connect(&url(&other), world.config()).await.map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{names:?} {mode}: {error:?}");
        }
    }
}

/// As `openssl x509 -req` makes one. It cannot be verified, but it encrypts, as with libpq.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_version_1_encrypts() {
    let certificate = include_str!("version_1.pem");
    let sandbox = Sandbox::builder().setting("ssl", "on");
    let sandbox = sandbox.file("server.crt", certificate).file("server.key", certificate).start().unwrap();
    let world = World::on(&sandbox);
    let port = sandbox.addr().port();
    for mode in ["prefer", "require"] {
        let url = format!("host=localhost port={port} user=postgres application_name={mode} sslmode={mode}");
        let node = SessionManager::connect(&url, world.config()).await.unwrap();
        in_time("the node is trusted", node.wait_until_trusted()).await.unwrap();
        let (all, encrypted) = connections(&world.client().await, mode).await;
        assert!(all >= 2 && all == encrypted, "{all} {encrypted}");
    }
}

#[tokio::test]
async fn a_listener_is_never_protected_less_than_the_pool() {
    let right = Pem::new(&authority().pem());
    // Nothing listens at port 1: what passes the check is unavailable.
    let url = |mode: &str| match mode {
        "verify-ca" | "verify-full" => {
            format!("host=localhost port=1 sslmode={mode} sslrootcert={}", right.0.display())
        }
        _ => format!("host=localhost port=1 sslmode={mode}"),
    };
    let strength =
        |mode: &str| ["require", "verify-ca", "verify-full"].iter().position(|other| *other == mode);
    for pool in MODES.into_iter().flatten() {
        for listener in MODES.into_iter().flatten() {
            let builder = SessionManager::builder(World::new().config()).url(&url(pool)).unwrap();
            let error = builder.listen_on_url(&url(listener)).unwrap().connect().await.unwrap_err();
            let case = format!("{pool} {listener}: {error:?}");
            if strength(listener) < strength(pool) {
                assert_eq!(error.kind(), ErrorKind::Config, "{case}");
                assert!(error.to_string().contains("`listen_on_url`"), "{case}");
            } else {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{case}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_inherits_the_pools_verification() {
    let table = Table::new();
    let world = World::on(&table.secured.sandbox);
    let pool = Case { mode: Some("verify-full"), roots: Some("right"), server: "right host" };
    let port = table.secured.sandbox.addr().port();
    let connect = async |listen_on: &str| -> Result<SessionManager, Error> {
        let mut config = world.config();
        config.query_timeout = std::time::Duration::from_secs(3);
        let builder = SessionManager::builder(config).url(&table.url(pool, "pool"))?;
        builder.listen_on(driver_config(&format!("{listen_on} port={port} user=postgres"))).connect().await
    };
    let node = connect("host=localhost application_name=receives").await.unwrap();
    in_time("the node is trusted", node.wait_until_trusted()).await.unwrap();
    assert_eq!(connections(&world.client().await, "receives").await, (1, 1), "prefer becomes verify-full");

    let outcome = connect("host=127.0.0.1 application_name=wrong_host").await;
    let is_refused = outcome.as_ref().map_or(true, |node| node.status().trusted_for.is_none());
    assert!(is_refused, "the certificate is not for this host: {outcome:?}");
    assert_eq!(connections(&world.client().await, "wrong_host").await, (0, 0));

    let error = connect("host=localhost sslmode=disable").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`listen_on_url`"), "{error}");
}

/// A pool of the application, which verifies the server as the application wants it.
fn verified_pool(secured: &Secured, mode: SslMode) -> Pool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(secured.authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.unwrap().with_root_certificates(roots).with_no_client_auth();
    let mut server = driver_config(&secured.sandbox.url().replace("127.0.0.1", "localhost"));
    server.ssl_mode(mode);
    let manager = Manager::new(server, MakeRustlsConnect::new(tls));
    Pool::builder(manager).max_size(2).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_beside_an_encrypted_pool_is_encrypted() {
    let secured = Secured::start();
    let world = World::on(&secured.sandbox);
    let roots = Pem::new(&secured.authority.pem());
    let port = secured.sandbox.addr().port();
    let string =
        |mode: &str| format!("host=localhost port={port} user=postgres dbname=postgres sslmode={mode}");
    let verify = format!("verify-full sslrootcert={}", roots.0.display());
    let socket =
        format!("host={} port={port} user=postgres dbname=postgres", secured.sandbox.socket_dir().display());
    for (listener, accepted) in [
        (string("disable"), false),
        (string("prefer"), false),
        (string("require"), true),
        (string(&verify), true),
        (socket, true),
    ] {
        let builder =
            || SessionManager::builder(world.config()).pool(verified_pool(&secured, SslMode::Require));
        let mut builders =
            vec![builder().listen_on_url(&listener).unwrap(), builder().url(&listener).unwrap()];
        if !listener.contains("sslrootcert") {
            builders.push(builder().listen_on(driver_config(&listener)));
        }
        for builder in builders {
            match builder.connect().await {
                Ok(node) => {
                    assert!(accepted, "{listener}");
                    in_time("the node is trusted", node.wait_until_trusted()).await.unwrap();
                }
                Err(error) => {
                    assert!(!accepted, "{listener}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Config, "{listener}: {error}");
                    assert!(error.to_string().contains("`listen_on_url`"), "{error}");
                }
            }
        }
    }
    // Beside plain text there is nothing to keep up with.
    let plain = SessionManager::builder(world.config()).pool(verified_pool(&secured, SslMode::Disable));
    plain.listen_on(driver_config(&string("disable"))).connect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_reaches_the_server() {
    let secured = Secured::start();
    let world = World::on(&secured.sandbox);
    let (certificate, key) = certificate("the-application", &secured.authority);
    let (certificate, key, roots) =
        (Pem::new(&certificate.pem()), Pem::new(&key.serialize_pem()), Pem::new(&secured.authority.pem()));
    let url = |certificate: &Pem, key: &Pem| {
        let port = secured.sandbox.addr().port();
        let [certificate, key, roots] = [certificate, key, &roots].map(|pem| pem.0.display().to_string());
        format!(
            "host=localhost port={port} user=postgres dbname=postgres application_name=with_certificate \
             sslmode=verify-full sslrootcert={roots} sslcert={certificate} sslkey={key}"
        )
    };
    let node = SessionManager::connect(&url(&certificate, &key), world.config()).await.unwrap();
    in_time("the node is trusted", node.wait_until_trusted()).await.unwrap();
    let names = "SELECT DISTINCT client_dn FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE application_name = 'with_certificate'";
    let rows = world.client().await.query(names, &[]).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["/CN=the-application"], "of the pool and of the listener");

    let other = Pem::new(&KeyPair::generate().unwrap().serialize_pem());
    for (key, expected) in
        [(&other, "does not belong"), (&roots, "sslkey"), (&Pem("/no/key".into()), "sslkey")]
    {
        let error = SessionManager::connect(&url(&certificate, key), world.config()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_key_that_others_can_read_is_not_used() {
    let (certificate, key) = certificate("the-application", &authority());
    let (certificate, key) = (Pem::new(&certificate.pem()), Pem::new(&key.serialize_pem()));
    let [certificate, path] = [&certificate, &key].map(|pem| pem.0.display().to_string());
    // Nothing listens at port 1: what passes the check is unavailable.
    let url =
        format!("host=localhost port=1 user=postgres sslmode=require sslcert={certificate} sslkey={path}");
    let is_roots = std::fs::metadata(&path).unwrap().uid() == 0;
    for (mode, is_used) in [
        (0o600, true),
        (0o400, true),
        (0o640, is_roots),
        (0o660, false),
        (0o604, false),
        (0o644, false),
        (0o601, false),
    ] {
        key.permit(mode);
        let error = SessionManager::connect(&url, World::new().config()).await.unwrap_err();
        if is_used {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{mode:o}: {error}");
        } else {
            assert_eq!(error.kind(), ErrorKind::Config, "{mode:o}: {error}");
            let text = error.to_string();
            assert!(text.contains(&format!("chmod 0600 {path}")), "{mode:o}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_certificate_is_refused() {
    let secured = Secured::start();
    let world = World::on(&secured.sandbox);
    let roots = Pem::new(&secured.authority.pem());
    let list = |serials: &[u64]| {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Pem::new(&params.signed_by(&secured.authority).unwrap().pem().unwrap())
    };
    let connect = async |lists: &Pem| {
        let (port, roots, lists) = (secured.sandbox.addr().port(), roots.0.display(), lists.0.display());
        let url = format!("host=localhost port={port} user=postgres sslmode=verify-full sslrootcert={roots}");
        SessionManager::connect(&format!("{url} sslcrl={lists}"), world.config()).await
    };
    let node = connect(&list(&[6, 8])).await.unwrap();
    in_time("the node is trusted", node.wait_until_trusted()).await.unwrap();
    let error = connect(&list(&[7])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(format!("{error:?}").contains("Revoked"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_refused_when_tls_is_required() {
    let world = World::new();
    let error =
        SessionManager::connect(&format!("{}?sslmode=require", world.url), world.config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
}
