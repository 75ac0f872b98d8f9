//! Reload of the TLS files. They are compared by content: new time stamps or symlinks alone change nothing.

use super::{TlsConfig, TlsError, TlsFiles, material::Contents, metrics::Metrics};
use crate::telemetry::chain;
use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use rustls::{Error, InconsistentKeys};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::MissedTickBehavior;

/// Time between two reads: three small files on tmpfs.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The TLS configuration of one side: the newest that is usable.
pub struct Reloading<C> {
    files: TlsFiles,
    current: ArcSwap<C>,
    metrics: Metrics,
    last: Mutex<Last>,
}

/// Result of the last read of the files.
struct Last {
    /// Digest of the contents, usable or not; `None` if they could not be read.
    digest: Option<[u8; 32]>,
    /// The error that was logged for them; the same error is not logged twice.
    error: Option<String>,
}

impl<C: TlsConfig> Reloading<C> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// The first problem of the files: unreadable, not PEM, not a pair, or a certificate that lacks a required part.
    pub fn load(files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        let metrics = Metrics::default();
        let contents = Contents::read(files)?;
        let config = build(&contents, files, &metrics)?;
        Ok(Arc::new(Self {
            files: files.clone(),
            current: ArcSwap::from_pointee(config),
            metrics,
            last: Mutex::new(Last { digest: Some(contents.digest()), error: None }),
        }))
    }

    /// Returns the configuration for the next connection.
    pub fn config(&self) -> Arc<C> {
        self.current.load_full()
    }

    /// Registers `grpc_{server,client}_tls_certificate_{update_error,verify_error,expiry_seconds}`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(C::SIDE, registry);
    }

    /// Keeps [`Self::config`] current. Never returns.
    pub async fn watch(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let this = Arc::clone(&self);
            // Reading can block (a network file system), which must not stop a thread that serves.
            if let Err(error) = tokio::task::spawn_blocking(move || this.read()).await {
                tracing::error!(%error, "reading the TLS files failed; keeping the previous ones");
            }
        }
    }

    /// Reads the files once.
    pub(super) fn read(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = Contents::read(&self.files).and_then(|contents| {
            let digest = contents.digest();
            if last.digest == Some(digest) {
                return Ok(None);
            }
            last.digest = Some(digest);
            build::<C>(&contents, &self.files, &self.metrics).map(Some)
        });
        match outcome {
            Ok(None) => {}
            Ok(Some(config)) => {
                self.current.store(Arc::new(config));
                self.metrics.update_error.set(0);
                last.error = None;
                tracing::info!(cert = %self.files.cert.display(), "TLS files changed; new connections use them");
            }
            Err(error) => {
                if matches!(error, TlsError::Read { .. }) {
                    // The next files that can be read are processed, even if they equal the previous ones.
                    last.digest = None;
                }
                self.metrics.update_error.set(1);
                let error = chain(&error);
                if last.error.as_ref() != Some(&error) {
                    tracing::error!(%error, "cannot use the TLS files; keeping the previous ones");
                    last.error = Some(error);
                }
            }
        }
    }
}

fn build<C: TlsConfig>(contents: &Contents, files: &TlsFiles, metrics: &Metrics) -> Result<C, TlsError> {
    let material = contents.parse(files, C::SIDE)?;
    let own = metrics.observe(C::SIDE, &material);
    let config = C::build(material).map_err(|source| match source {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { cert: files.cert.clone(), key: files.key.clone() }
        }
        source => TlsError::Unusable { cert: files.cert.clone(), key: files.key.clone(), source },
    })?;
    if let Err(error) = own {
        tracing::warn!(
            cert = %files.cert.display(), ca = %files.ca.display(), %error,
            "this process's certificate does not verify against --ca; peers with the same authorities will refuse it"
        );
    }
    Ok(config)
}
