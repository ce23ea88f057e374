//! TLS as the connection string asks for it.

use pg_sandbox::Sandbox;
use pg_session::{Config, ErrorKind, Migrations, SessionManager};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::World;

/// A server with a certificate for `localhost`, not for 127.0.0.1, and the PEM of the authority that signed it.
fn server() -> (Sandbox, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let sandbox = Sandbox::builder()
        .setting("ssl", "on")
        .file("server.crt", certificate.pem())
        .file("server.key", key.serialize_pem())
        .start()
        .unwrap();
    (sandbox, authority.pem())
}

/// A file that is gone with the test.
struct Pem(std::path::PathBuf);

impl Pem {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pg_session_ca_{}.pem", uuid::Uuid::new_v4().simple()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Pem {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_verified_as_far_as_sslmode_says() {
    let (sandbox, authority) = server();
    let world = World::on(&sandbox);
    let (right, wrong) = (Pem::new(&authority), Pem::new(&server().1));
    let port = sandbox.addr().port();
    let url = |host: &str, mode: &str, pem: &Pem| {
        let path = pem.0.display();
        format!("postgres://postgres@{host}:{port}/postgres?sslmode={mode}&sslrootcert={path}")
    };
    let client = world.client().await;
    // Encrypted, and for `verify-*` proved.
    for (host, mode) in [("127.0.0.1", "require"), ("127.0.0.1", "verify-ca"), ("localhost", "verify-full")] {
        let node = SessionManager::connect(&url(host, mode, &right), world.config()).await.unwrap();
        node.trusted().await;
        let plain: i64 = client
            .query_one(
                "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND NOT ssl",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        assert_eq!(plain, 0, "{mode}: pool and listener are both encrypted");
        let session = node.create(1).await.unwrap();
        assert!(node.get(session.id()).await.unwrap().is_some());
        assert!(node.shutdown(crate::support::PATIENCE).await.is_complete());
    }
    // Somebody else's certificate, or somebody else's name.
    for (host, mode, pem) in [
        ("127.0.0.1", "verify-ca", &wrong),
        ("localhost", "verify-full", &wrong),
        ("127.0.0.1", "verify-full", &right),
    ] {
        let mut config = Config::default();
        config.migrations = Migrations::Apply;
        let error = SessionManager::connect(&url(host, mode, pem), config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{host} {mode}: {error:?}");
        assert!(error.to_string().contains("sslrootcert"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_refused_when_tls_is_required() {
    let world = World::new();
    let error =
        SessionManager::connect(&format!("{}?sslmode=require", world.url), world.config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
}
