//! The connection to AWS: region, endpoint, trusted authorities, proxy, and the credentials that sign calls.
//!
//! The credentials come from the SDK's default chain (environment, profile, web identity, container, instance);
//! `--assume-role-arn` adds one more role.

use crate::core::{ids::RoleArn, session::SessionName};
use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableRegionProvider,
    imds::region::ImdsRegionProvider, meta::region::RegionProviderChain, profile::ProfileFileRegionProvider,
    provider_config::ProviderConfig, retry::RetryConfig, sts::AssumeRoleProvider, timeout::TimeoutConfig,
};
use aws_sdk_sts::config::{SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_http_client::{
    Connector,
    proxy::ProxyConfig,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{path::Path, path::PathBuf, time::Duration};

/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest attempt of a call; STS usually responds within 0.2 s, and within 0.6 s when slow.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest call, including retries. Agents give up after 5 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most attempts of a call (standard mode of the SDK, with its backoff).
const ATTEMPTS_MAX: u32 = 3;
/// Longest search for a region: the real IMDS may be unreachable.
const REGION_TIMEOUT: Duration = Duration::from_secs(5);
/// Region and URL of the global endpoint, used if no region is configured, as in kiam.
const GLOBAL_ENDPOINT: (&str, &str) = ("us-east-1", "https://sts.amazonaws.com");

/// Flags of AWS.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct AwsSettings {
    /// `--region`; a name with `fips` selects the FIPS endpoint.
    pub(crate) region: Option<String>,
    /// `--sts-endpoint`: a URL instead of the region's.
    pub(crate) sts_endpoint: Option<String>,
    /// `--sts-ca`: authorities of that endpoint, in addition to the system's.
    pub(crate) sts_ca: Option<PathBuf>,
}

/// Reason why the connection to AWS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AwsError {
    #[error("--sts-ca={}: cannot be read", path.display())]
    ReadAuthorities {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("--sts-ca={}: contains no usable PEM certificate", path.display())]
    BadAuthorities { path: PathBuf },
    #[error(
        "no certificate authorities found, so AWS cannot be verified: install the package ca-certificates, or give \
         --sts-ca"
    )]
    NoAuthorities,
    #[error("cannot set up the HTTP client of the AWS SDK: {reason}")]
    HttpClient { reason: String },
}

/// The connection to AWS.
pub(crate) struct Aws {
    config: SdkConfig,
    http: SharedHttpClient,
    /// The STS endpoint, for messages: `at URL`, or `of region NAME`.
    sts: String,
}

impl Aws {
    pub(crate) async fn connect(settings: &AwsSettings) -> Result<Self, AwsError> {
        let http = http_client(settings)?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http.clone())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .operation_timeout(CALL_TIMEOUT)
                    .build(),
            );
        let region = region(settings, &http).await;
        let endpoint = match (&settings.sts_endpoint, &region) {
            (Some(endpoint), _) => Some(endpoint.as_str()),
            (None, Some(_)) => None,
            (None, None) => Some(GLOBAL_ENDPOINT.1),
        };
        let (name, fips) = split_fips(region.as_deref().unwrap_or(GLOBAL_ENDPOINT.0));
        let sts = endpoint.map_or_else(|| format!("of region {name}"), |endpoint| format!("at {endpoint}"));
        tracing::info!(region = name, fips, "STS {sts}");
        loader = loader.region(Region::new(name)).use_fips(fips);
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        Ok(Self { config: loader.load().await, http, sts })
    }

    /// Signs all further calls with credentials of this role (`--assume-role-arn`).
    pub(crate) async fn assume(self, role: &RoleArn, session: &SessionName) -> Self {
        let provider = AssumeRoleProvider::builder(role.as_str())
            .session_name(session.as_str())
            .configure(&self.config)
            .build()
            .await;
        let config = self.config.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build();
        Self { config, ..self }
    }

    /// Returns the STS endpoint: `at URL`, or `of region NAME`.
    pub(super) fn sts(&self) -> &str {
        &self.sts
    }

    pub(super) fn config(&self) -> &SdkConfig {
        &self.config
    }

    pub(super) fn provider_config(&self) -> ProviderConfig {
        ProviderConfig::without_region().with_http_client(self.http.clone())
    }
}

/// Returns `--region`, else the region of the environment, the profile or the instance, if any.
async fn region(settings: &AwsSettings, http: &SharedHttpClient) -> Option<String> {
    if settings.region.is_some() {
        return settings.region.clone();
    }
    let config = ProviderConfig::without_region().with_http_client(http.clone());
    let mut chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::builder().configure(&config).build());
    if settings.sts_endpoint.is_none() {
        chain = chain.or_else(ImdsRegionProvider::builder().configure(&config).build());
    }
    let region = tokio::time::timeout(REGION_TIMEOUT, chain.region()).await.ok().flatten();
    region.map(|region| region.to_string())
}

/// Splits kiam's notation for a FIPS endpoint, `us-east-1-fips` or `fips-us-east-1`, into region and flag.
fn split_fips(region: &str) -> (String, bool) {
    let plain = region.trim_end_matches("-fips").trim_start_matches("fips-");
    (plain.to_owned(), plain != region)
}

fn http_client(settings: &AwsSettings) -> Result<SharedHttpClient, AwsError> {
    let custom = settings.sts_ca.as_deref().map(authorities).transpose()?;
    let system = !rustls_native_certs::load_native_certs().certs.is_empty();
    let plain = settings.sts_endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
    if custom.is_none() && !system && !plain {
        return Err(AwsError::NoAuthorities);
    }
    let mut trust = TrustStore::empty().with_native_roots(system);
    if let Some(pem) = custom {
        trust = trust.with_pem_certificate(pem);
    }
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| AwsError::HttpClient { reason: error.to_string() })?;
    Ok(aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build()
    }))
}

/// Returns the bytes of the bundle after checking them: the SDK panics on a bad bundle.
fn authorities(path: &Path) -> Result<Vec<u8>, AwsError> {
    let pem = std::fs::read(path).map_err(|source| AwsError::ReadAuthorities { path: path.to_owned(), source })?;
    let bad = || AwsError::BadAuthorities { path: path.to_owned() };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_pem| bad())?;
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate).map_err(|_refused| bad())?;
    }
    if store.is_empty() { Err(bad()) } else { Ok(pem) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_region_name_selects_fips_as_in_kiam() {
        for (given, plain, fips) in [
            ("us-east-1", "us-east-1", false),
            ("us-east-1-fips", "us-east-1", true),
            ("fips-us-gov-west-1", "us-gov-west-1", true),
        ] {
            assert_eq!(split_fips(given), (plain.to_owned(), fips));
        }
    }

    #[test]
    fn a_bad_bundle_is_an_error_not_a_panic() {
        for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let error = authorities(file.path()).unwrap_err();
            assert!(error.to_string().starts_with("--sts-ca="), "{error}");
        }
        assert!(matches!(authorities(Path::new("/absent")), Err(AwsError::ReadAuthorities { .. })));
    }
}
