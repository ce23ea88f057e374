//! TLS: what is asked for is never quietly left out.

use std::sync::Arc;

use pg_listen::Listener;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::fixtures::{SANDBOX, eventually, started, unique};

#[tokio::test]
async fn tls_that_is_required_is_not_replaced_by_plain_text() {
    let (listener, _) = listener(SslMode::Require);
    eventually("a failed attempt", async || listener.status().failures() > 0).await;
    let status = listener.status();
    assert_eq!(status.connections(), 0);
    assert!(status.last_error().unwrap().contains("TLS"), "{status:?}");
}

#[tokio::test]
async fn tls_that_is_preferred_falls_back_where_the_server_has_none() {
    let (listener, channel) = listener(SslMode::Prefer);
    let _subscription = started(&listener, &channel).await;
}

fn listener(mode: SslMode) -> (Listener, String) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut config: Config = SANDBOX.url().parse().unwrap();
    config.ssl_mode(mode);
    (Listener::builder(config).tls(MakeRustlsConnect::new(tls)).start().unwrap(), unique("tls"))
}
