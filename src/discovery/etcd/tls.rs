//! TLS to etcd: whom corelane trusts and who it says it is.
//!
//! Built once, at the start, so that a broken certificate is refused before anything runs.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

use crate::config::EtcdTls;

/// The way into TLS with these certificates.
///
/// # Errors
/// Which certificate or key cannot be used, and why.
pub(super) fn connector(tls: &EtcdTls) -> Result<TlsConnector, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(authorities(tls.authorities.as_deref())?);
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| format!("--etcd-key: no key in PEM: {error}"))?;
            builder
                .with_client_auth_cert(certificates("--etcd-cert", chain)?, key)
                .map_err(|error| format!("--etcd-cert and --etcd-key: {error}"))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The authorities of a file, or the machine's.
fn authorities(pem: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let certificates = match pem {
        Some(pem) => certificates("--etcd-ca", pem)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _) = store.add_parsable_certificates(certificates);
    if added == 0 {
        return Err("there is no authority to check etcd by: give --etcd-ca".to_owned());
    }
    Ok(store)
}

fn certificates(flag: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("{flag}: {error}"))?;
    if found.is_empty() {
        return Err(format!("{flag}: there is no certificate in PEM"));
    }
    Ok(found)
}
