//! Resolution of `--server-address` to the addresses to try, in order.

use futures::future::BoxFuture;
use kiam_common::flags::ServerAddress;
use std::{hash::BuildHasher as _, io, net::SocketAddr, time::Duration};
use tokio::time::{error::Elapsed, timeout};

/// Time limit of a look-up: the resolver queries a second nameserver after 5 seconds (resolv.conf(5)).
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(8);
/// Most addresses tried in a round; kiam servers hardly have more.
const ADDRESSES_MAX: usize = 16;

/// A look-up of the server's name, made again at each call.
pub(super) type Lookup = Box<dyn Fn() -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// A failed look-up.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("cannot resolve the name")]
    Failed(#[source] io::Error),
    #[error("resolving the name timed out")]
    Timeout(#[source] Elapsed),
    #[error("the name has no address")]
    Nothing,
}

/// Returns a look-up by the system's resolver.
pub(super) fn system(server: &ServerAddress) -> Lookup {
    let ServerAddress { host, port } = server.clone();
    Box::new(move || {
        let host = host.clone();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    })
}

/// Returns the addresses to try, without duplicates: in random order, so that agents spread over servers, and `avoid`
/// last.
pub(super) async fn addresses(lookup: &Lookup, avoid: Option<SocketAddr>) -> Result<Vec<SocketAddr>, ResolveError> {
    let found = timeout(RESOLVE_TIMEOUT, lookup()).await.map_err(ResolveError::Timeout)?;
    let found = in_order(found.map_err(ResolveError::Failed)?, avoid);
    if found.is_empty() { Err(ResolveError::Nothing) } else { Ok(found) }
}

fn in_order(mut addresses: Vec<SocketAddr>, avoid: Option<SocketAddr>) -> Vec<SocketAddr> {
    // RandomState has random keys.
    let random = std::hash::RandomState::new();
    addresses.sort_by_cached_key(|address| (Some(*address) == avoid, random.hash_one(address)));
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 443))
    }

    #[test]
    fn failed_address_comes_last_without_duplicates() {
        let order = in_order(vec![address(1), address(2), address(1), address(3)], Some(address(2)));
        assert_eq!(order.len(), 3);
        assert_eq!(order.last(), Some(&address(2)));
        assert_eq!(in_order((0..100).map(address).collect(), None).len(), ADDRESSES_MAX);
    }

    #[test]
    fn agents_spread_over_addresses() {
        let first = |_| in_order((1..=4).map(address).collect(), None).first().copied();
        let seen: HashSet<_> = (0..200).map(first).collect();
        assert_eq!(seen.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn lookup_times_out_and_needs_an_address() {
        let hangs: Lookup = Box::new(|| Box::pin(std::future::pending()));
        assert!(matches!(addresses(&hangs, None).await, Err(ResolveError::Timeout(_))));
        let nothing: Lookup = Box::new(|| Box::pin(async { Ok(Vec::new()) }));
        assert!(matches!(addresses(&nothing, None).await, Err(ResolveError::Nothing)));
    }
}
