//! Session tokens (IMDSv2) without a table: a token is sealed and contains its expiry. It is valid only from the
//! address and interface that it was issued to (or from the pod, where pods share an address), and only until the node
//! reboots.
//!
//! ```text
//! base64url( nonce 12 | ChaCha20-Poly1305( expiry, ms since boot 8 ) | tag 16 )
//! bound to: version, boot, and address and interface, or the pod's UID
//! ```

use super::peer::{Arrival, Peer};
use crate::attestation::UID_LEN;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use kiam_common::secret::Secret;
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    rand::{SecureRandom as _, SystemRandom},
};
use std::{io, net::IpAddr, path::Path};

/// Length of a token, characters. A token of the real IMDS has 56.
pub(super) const TOKEN_LEN: usize = 48;
/// Longest time to live of a token, seconds (AWS: "X-aws-ec2-metadata-token-ttl-seconds").
pub(super) const TTL_SECONDS_MAX: u32 = 21_600;

/// Version of the layout of a token and of its binding.
const VERSION: u8 = 2;
const EXPIRY_LEN: usize = 8;
const TAG_LEN: usize = 16;
const SEALED_LEN: usize = NONCE_LEN + EXPIRY_LEN + TAG_LEN;
/// Length of a boot id, which is a UUID in its usual form.
const BOOT_ID_LEN: usize = 36;
const BOUND_LEN: usize = 1 + BOOT_ID_LEN + 1 + UID_LEN;
/// Kinds of [`Bound`].
const TO_ADDRESS: u8 = 1;
const TO_POD: u8 = 2;

const _: () = assert!(TOKEN_LEN == SEALED_LEN / 3 * 4 && SEALED_LEN.is_multiple_of(3));

/// The identity of one boot of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BootId([u8; BOOT_ID_LEN]);

/// Reads the kernel's boot id.
pub(crate) fn boot_id() -> io::Result<BootId> {
    let text = std::fs::read(Path::new("/proc/sys/kernel/random/boot_id"))?;
    let id = text.trim_ascii_end().try_into();
    id.map(BootId).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// An error of [`Tokens`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the key of session tokens is invalid")]
    Key,
    #[error("the kernel has no random bytes")]
    Random,
    #[error("a token could not be sealed")]
    Seal,
}

/// Issues and checks tokens.
pub(crate) struct Tokens {
    key: LessSafeKey,
    boot: BootId,
    random: SystemRandom,
}

/// The binding of a token to its peer, as one string of bytes.
struct Bound([u8; BOUND_LEN]);

/// The time to live of a token, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ttl(u32);

impl Ttl {
    /// Parses the value of the header: a whole number of seconds from 1 to [`TTL_SECONDS_MAX`], digits only.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        // `parse` would also accept a sign.
        if !value.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let seconds = str::from_utf8(value).ok()?.parse().ok()?;
        (1..=TTL_SECONDS_MAX).contains(&seconds).then_some(Self(seconds))
    }

    /// Returns the number of seconds.
    pub(super) const fn seconds(self) -> u32 {
        self.0
    }
}

impl Tokens {
    /// `key` must be random; the old and the new agent of an upgrade share it. A key of this length is always valid.
    pub(crate) fn new(key: &Secret<[u8; 32]>, boot: BootId) -> Result<Self, TokenError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.expose()).map_err(|Unspecified| TokenError::Key)?;
        Ok(Self { key: LessSafeKey::new(key), boot, random: SystemRandom::new() })
    }

    /// Issues a token for `peer` at `now_ms` (milliseconds since boot).
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub(super) fn mint(&self, peer: &Peer, ttl: Ttl, now_ms: u64) -> Result<[u8; TOKEN_LEN], TokenError> {
        let expiry_ms = now_ms.saturating_add(u64::from(ttl.0) * 1_000);
        // 96 random bits: a collision becomes likely after 2^48 tokens, which is ninety years at 100,000 per second.
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|Unspecified| TokenError::Random)?;
        let mut expiry = expiry_ms.to_be_bytes();
        let bound = Aad::from(Bound::to(self.boot, peer));
        let unique = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(unique, bound, &mut expiry);
        let tag = tag.map_err(|Unspecified| TokenError::Seal)?;
        let mut sealed = [0; SEALED_LEN];
        let parts = nonce.iter().chain(&expiry).chain(tag.as_ref());
        sealed.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        let mut token = [0; TOKEN_LEN];
        match URL_SAFE_NO_PAD.encode_slice(sealed, &mut token) {
            Ok(TOKEN_LEN) => Ok(token),
            _ => Err(TokenError::Seal),
        }
    }

    /// Returns true if `token` was issued to `peer` and has not expired at `now_ms`.
    pub(super) fn is_valid(&self, token: &[u8], peer: &Peer, now_ms: u64) -> bool {
        self.expiry_ms(token, peer).is_some_and(|expiry_ms| now_ms < expiry_ms)
    }

    fn expiry_ms(&self, token: &[u8], peer: &Peer) -> Option<u64> {
        if token.len() != TOKEN_LEN {
            return None;
        }
        let mut sealed = [0; SEALED_LEN];
        if URL_SAFE_NO_PAD.decode_slice(token, &mut sealed).ok()? != SEALED_LEN {
            return None;
        }
        let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let bound = Aad::from(Bound::to(self.boot, peer));
        let expiry = self.key.open_in_place(nonce, bound, rest).ok()?;
        Some(u64::from_be_bytes(<[u8; EXPIRY_LEN]>::try_from(&*expiry).ok()?))
    }
}

impl Bound {
    fn to(BootId(boot): BootId, peer: &Peer) -> Self {
        let mut bound = [0; BOUND_LEN];
        let mut fill = |kind: u8, to: &[u8]| {
            let parts = [VERSION].into_iter().chain(boot).chain([kind]).chain(to.iter().copied());
            bound.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        };
        match &peer.arrival {
            Arrival::Interface { index, .. } => {
                let address = match peer.address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                // The kernel never uses 0 as the index of an interface.
                let interface = index.unwrap_or(0).to_be_bytes();
                fill(TO_ADDRESS, &[&address.octets()[..], &interface].concat());
            }
            Arrival::Hook { pod, .. } => fill(TO_POD, pod.bytes()),
        }
        Self(bound)
    }
}

impl AsRef<[u8]> for Bound {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attestation::PodUid, imds::peer::PendingAttestation};

    const BOOT: BootId = BootId(*b"2b1f3c9e-0a51-4a37-9d3e-5b0a5a7f1c11");
    const OTHER_BOOT: BootId = BootId(*b"2b1f3c9e-0a51-4a37-9d3e-5b0a5a7f1c12");
    const NOW_MS: u64 = 1_000_000;

    fn tokens(key: u8, boot: BootId) -> Tokens {
        Tokens::new(&Secret::new([key; 32]), boot).unwrap()
    }

    fn peer(address: &str, interface: u32) -> Peer {
        Peer { address: address.parse::<IpAddr>().unwrap().to_canonical(), arrival: by_interface(Some(interface)) }
    }

    fn by_interface(index: Option<u32>) -> Arrival {
        Arrival::Interface { index, attestation: PendingAttestation::new(std::future::ready(None)) }
    }

    fn on_the_node(uid: &str) -> Peer {
        let arrival = Arrival::Hook { pod: PodUid::parse(uid).unwrap(), on_node_network: true };
        Peer { address: [127, 0, 0, 1].into(), arrival }
    }

    fn minted(ttl: u32) -> (Tokens, Peer, [u8; TOKEN_LEN]) {
        let (tokens, pod) = (tokens(1, BOOT), peer("10.0.0.7", 3));
        let token = tokens.mint(&pod, Ttl(ttl), NOW_MS).unwrap();
        (tokens, pod, token)
    }

    #[test]
    fn token_is_valid_until_it_expires() {
        let (tokens, pod, token) = minted(60);
        assert!(tokens.is_valid(&token, &pod, NOW_MS));
        assert!(tokens.is_valid(&token, &pod, NOW_MS + 59_999));
        assert!(!tokens.is_valid(&token, &pod, NOW_MS + 60_000));
        assert!(!tokens.is_valid(&token, &pod, u64::MAX));
    }

    #[test]
    fn token_is_valid_only_for_its_peer() {
        let (ours, pod, token) = minted(60);
        assert!(tokens(1, BOOT).is_valid(&token, &pod, NOW_MS), "another agent with the same key");
        assert!(!tokens(2, BOOT).is_valid(&token, &pod, NOW_MS), "another key");
        assert!(!tokens(1, OTHER_BOOT).is_valid(&token, &pod, NOW_MS), "another boot");
        assert!(!ours.is_valid(&token, &peer("10.0.0.8", 3), NOW_MS), "another address");
        assert!(!ours.is_valid(&token, &peer("10.0.0.7", 4), NOW_MS), "another interface");
        assert!(!ours.is_valid(&token, &peer("2001:db8::7", 3), NOW_MS), "another family");
        let unknown = Peer { arrival: by_interface(None), ..pod };
        assert!(!ours.is_valid(&token, &unknown, NOW_MS), "no interface");
        assert!(ours.is_valid(&token, &peer("::ffff:10.0.0.7", 3), NOW_MS), "the same address, mapped");
    }

    #[test]
    fn tokens_of_pods_that_share_an_address_differ() {
        let (tokens, red) = (tokens(1, BOOT), on_the_node("11111111-2222-4333-8444-aaaaaaaaaaaa"));
        let token = tokens.mint(&red, Ttl(60), NOW_MS).unwrap();
        assert!(tokens.is_valid(&token, &red, NOW_MS));
        let blue = on_the_node("11111111-2222-4333-8444-bbbbbbbbbbbb");
        assert!(!tokens.is_valid(&token, &blue, NOW_MS), "another pod at the same address");
        let elsewhere = Peer { address: [10, 0, 0, 1].into(), ..red.clone() };
        assert!(tokens.is_valid(&token, &elsewhere, NOW_MS), "the pod, from another of the node's addresses");
        assert!(!tokens.is_valid(&token, &peer("127.0.0.1", 0), NOW_MS), "its address, by an interface");
    }

    #[test]
    fn changed_token_is_invalid() {
        let (tokens, pod, token) = minted(60);
        for index in 0..TOKEN_LEN {
            let mut changed = token;
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert!(!tokens.is_valid(&changed, &pod, NOW_MS), "character {index}");
        }
        for bad in [
            &b""[..],
            b"x",
            &token[..TOKEN_LEN - 1],
            &[&token[..], b"="].concat(),
            &[b'='; TOKEN_LEN],
            &[0xff; TOKEN_LEN],
        ] {
            assert!(!tokens.is_valid(bad, &pod, NOW_MS), "{bad:?}");
        }
    }

    #[test]
    fn tokens_differ_and_fit_in_a_header() {
        let (tokens, pod, first) = minted(60);
        let second = tokens.mint(&pod, Ttl(60), NOW_MS).unwrap();
        assert_ne!(first, second);
        assert!(first.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
    }

    #[test]
    fn ttl_is_whole_seconds_up_to_six_hours() {
        for (value, wanted) in [
            ("1", Some(1)),
            ("300", Some(300)),
            ("21600", Some(21_600)),
            ("0060", Some(60)),
            ("", None),
            ("0", None),
            ("00", None),
            ("21601", None),
            ("4294967297", None),
            ("99999999999999999999", None),
            ("-1", None),
            ("+60", None),
            ("60s", None),
            ("1.5", None),
            ("0x10", None),
            (" 60", None),
            ("sixty", None),
            ("６０", None),
        ] {
            assert_eq!(Ttl::parse(value.as_bytes()).map(Ttl::seconds), wanted, "{value:?}");
        }
        assert_eq!(Ttl::parse(&[0xff]), None);
    }

    #[test]
    fn kernel_has_a_boot_id() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    }
}
