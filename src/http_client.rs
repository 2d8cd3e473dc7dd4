//! HTTP clients; there is no other way to make one, as the TLS library is not chosen globally.
//!
//! Clients with TLS trust the system's CA certificates, or those of SSL_CERT_FILE and SSL_CERT_DIR,
//! for networks with TLS inspection. If the system has none, Mozilla's are used.

use std::sync::Arc;

use reqwest::ClientBuilder;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// For any address.
pub fn with_tls() -> ClientBuilder {
    trusting(trusted())
}

/// For plain HTTP only: quick to create, without certificates.
pub fn without_tls() -> ClientBuilder {
    trusting(RootCertStore::empty())
}

fn trusting(certificates: RootCertStore) -> ClientBuilder {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_root_certificates(certificates)
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(config)
}

fn trusted() -> RootCertStore {
    let mut trusted = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate of the system cannot be read");
    }
    let (num_added, _) = trusted.add_parsable_certificates(found.certs);
    if num_added == 0 {
        tracing::debug!("no system CA certificates found; using Mozilla's");
        trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    trusted
}
