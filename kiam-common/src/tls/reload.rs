//! Files that are read again each second, by content: a change of time stamps or of symlinks alone changes nothing.

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

/// How often the files are read: three small files on tmpfs.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// One end's TLS configuration, always the newest that is usable.
pub struct Reloading<C> {
    files: TlsFiles,
    current: ArcSwap<C>,
    metrics: Metrics,
    last: Mutex<Last>,
}

/// What the last look at the files showed.
struct Last {
    /// Of the contents that were seen, good or bad.
    digest: Option<[u8; 32]>,
    /// What was logged about them; the same is not said twice.
    complaint: Option<String>,
}

impl<C: TlsConfig> Reloading<C> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// The first thing that is wrong with them: unreadable, not PEM, not a pair, or a certificate that says too little.
    pub fn load(files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        let metrics = Metrics::default();
        let contents = Contents::read(files)?;
        let config = build(&contents, files, &metrics)?;
        Ok(Arc::new(Self {
            files: files.clone(),
            current: ArcSwap::from_pointee(config),
            metrics,
            last: Mutex::new(Last { digest: Some(contents.digest()), complaint: None }),
        }))
    }

    /// The configuration for the next connection.
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
            // Files can hang (a network file system): not on a thread that serves.
            if let Err(error) = tokio::task::spawn_blocking(move || this.look()).await {
                tracing::error!(%error, "TLS files: the look at them failed");
            }
        }
    }

    /// One look at the files.
    pub(super) fn look(&self) {
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
                last.complaint = None;
                tracing::info!(cert = %self.files.cert.display(), "TLS files changed: in use for new connections");
            }
            Err(error) => {
                if matches!(error, TlsError::Read { .. }) {
                    // Whatever comes after the gap is news, even what was there before it.
                    last.digest = None;
                }
                self.metrics.update_error.set(1);
                let complaint = chain(&error);
                if last.complaint.as_ref() != Some(&complaint) {
                    tracing::error!(error = %complaint, "TLS files cannot be used: the previous ones stay in use");
                    last.complaint = Some(complaint);
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
            "our own certificate does not verify against --ca: peers with the same authorities will refuse it"
        );
    }
    Ok(config)
}
