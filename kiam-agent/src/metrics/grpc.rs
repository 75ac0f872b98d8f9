//! The methods of the server, for the metrics of calls.

/// A method of `kiam.KiamService`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rpc {
    PodRole,
    PodCredentials,
    Health,
}

impl Rpc {
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::PodRole => "GetPodRole",
            Self::PodCredentials => "GetPodCredentials",
            Self::Health => "GetHealth",
        }
    }
}
