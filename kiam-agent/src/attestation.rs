//! The wire format of attestation: the worker asks the parent which pod opened a connection. Questions and answers have
//! a fixed size and are one message each, so the parent has nothing to parse: any bytes of the right length are a
//! question.

use std::{fmt, net::IpAddr};

/// Longest UID of a pod in bytes: a UUID in its usual form (RFC 9562).
pub(crate) const UID_LEN: usize = 36;
/// Length of the UID of a static pod, which the kubelet reads from a local file: a UUID without hyphens.
const STATIC_UID_LEN: usize = 32;
/// Positions of the hyphens in a UUID.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The UID of a pod, as the name of its cgroup contains it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodUid([u8; UID_LEN]);

impl PodUid {
    /// Parses a UID: a UUID, or the hash of a static pod.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; UID_LEN];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Self::from_bytes(bytes)
    }

    fn from_bytes(bytes: [u8; UID_LEN]) -> Option<Self> {
        let uid = Self(bytes);
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let well_formed = match uid.len() {
            UID_LEN => bytes
                .iter()
                .enumerate()
                .all(|(index, byte)| if HYPHENS.contains(&index) { *byte == b'-' } else { is_digit(byte) }),
            STATIC_UID_LEN => bytes.iter().take(STATIC_UID_LEN).all(is_digit),
            _ => false,
        };
        well_formed.then_some(uid)
    }

    /// Returns the UID as text.
    pub(crate) fn as_str(&self) -> &str {
        // Digits and hyphens only.
        self.0.get(..self.len()).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Returns the UID as bytes, padded with zeros.
    pub(crate) const fn bytes(&self) -> &[u8; UID_LEN] {
        &self.0
    }

    /// Returns whether it belongs to a static pod: the kubelet's hash of the pod's file. In the API server such a pod
    /// has a mirror with another UID, and anyone who creates a mirror pod can claim any hash.
    pub(crate) fn is_static(&self) -> bool {
        self.len() == STATIC_UID_LEN
    }

    fn len(&self) -> usize {
        self.0.iter().position(|byte| *byte == 0).unwrap_or(UID_LEN)
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Question of the worker: which pod opened this connection?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    /// Identifier, which the answer repeats.
    pub(crate) id: u64,
    /// Interface by which the connection arrived, or `abi::BY_HOOK_NODE`, `abi::BY_HOOK_POD`.
    pub(crate) interface: u32,
    /// The client's address, as 16 bytes.
    pub(crate) address: [u8; 16],
    /// The client's port.
    pub(crate) port: u16,
}

/// Answer of the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Identifier of the question.
    pub(crate) id: u64,
    /// Evidence about the connection.
    pub(crate) origin: Origin,
}

/// The kernel's evidence about the socket that opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Interface by which the first packet arrived; for a connection from a bridge, its port. 0 if unknown.
    pub(crate) interface: u32,
    /// True if the kernel programs have the kubepods cgroup.
    pub(crate) kubepods: bool,
    /// Owner of the socket.
    pub(crate) owner: SocketOwner,
}

/// Owner of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketOwner {
    /// A pod.
    Pod(PodUid),
    /// No pod: its cgroup belongs to no pod, or the kernel did not return it.
    NotAPod,
    /// The connection has no record.
    NoRecord,
    /// Several ports of the bridge have a record of such a connection.
    Several,
}

/// Length of a [`Question`] in bytes.
pub(crate) const QUESTION_LEN: usize = 8 + 4 + 16 + 2;
/// Length of an [`Answer`] in bytes.
pub(crate) const ANSWER_LEN: usize = 8 + 4 + 1 + 1 + UID_LEN;

const POD: u8 = 1;
const NOT_A_POD: u8 = 2;
const NO_RECORD: u8 = 3;
const SEVERAL: u8 = 4;

impl Question {
    /// Creates a question about a connection from this address and port.
    pub(crate) const fn new(interface: u32, address: IpAddr, port: u16) -> Self {
        let address = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self { id: 0, interface, address, port }
    }

    /// Encodes the message.
    pub(crate) fn to_bytes(self) -> [u8; QUESTION_LEN] {
        let Self { id, interface, address, port } = self;
        joined([&id.to_ne_bytes(), &interface.to_ne_bytes(), &address, &port.to_ne_bytes()])
    }

    /// Decodes a message; `None` if it has another length.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (interface, rest) = rest.split_first_chunk()?;
        let (address, rest) = rest.split_first_chunk()?;
        let port = rest.try_into().ok()?;
        Some(Self {
            id: u64::from_ne_bytes(*id),
            interface: u32::from_ne_bytes(*interface),
            address: *address,
            port: u16::from_ne_bytes(port),
        })
    }
}

impl Answer {
    /// Encodes the message.
    pub(crate) fn to_bytes(self) -> [u8; ANSWER_LEN] {
        let Self { id, origin: Origin { interface, kubepods, owner } } = self;
        let (kind, uid) = match owner {
            SocketOwner::Pod(uid) => (POD, *uid.bytes()),
            SocketOwner::NotAPod => (NOT_A_POD, [0; UID_LEN]),
            SocketOwner::NoRecord => (NO_RECORD, [0; UID_LEN]),
            SocketOwner::Several => (SEVERAL, [0; UID_LEN]),
        };
        joined([&id.to_ne_bytes(), &interface.to_ne_bytes(), &[u8::from(kubepods)], &[kind], &uid])
    }

    /// Decodes a message; `None` if it is invalid.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (interface, rest) = rest.split_first_chunk()?;
        let ([kubepods, kind], rest) = rest.split_first_chunk()?;
        let uid: [u8; UID_LEN] = rest.try_into().ok()?;
        let owner = match *kind {
            POD => SocketOwner::Pod(PodUid::from_bytes(uid)?),
            NOT_A_POD => SocketOwner::NotAPod,
            NO_RECORD => SocketOwner::NoRecord,
            SEVERAL => SocketOwner::Several,
            _ => return None,
        };
        let (interface, kubepods) = (u32::from_ne_bytes(*interface), *kubepods != 0);
        Some(Self { id: u64::from_ne_bytes(*id), origin: Origin { interface, kubepods, owner } })
    }
}

/// Concatenates the parts. `LEN` must be the sum of their lengths.
fn joined<const LEN: usize, const PARTS: usize>(parts: [&[u8]; PARTS]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "11111111-2222-4333-8444-aaaaaaaaaaaa";
    const STATIC: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn uid_is_a_uuid_or_the_hash_of_a_static_pod() {
        for (text, is_static) in [(UID, false), (STATIC, true)] {
            let uid = PodUid::parse(text).unwrap();
            assert_eq!((uid.as_str(), uid.is_static()), (text, is_static));
        }
        for bad in [
            "",
            "a",
            &UID[..35],
            &format!("{UID}0"),
            &UID.to_uppercase(),
            &UID.replace('-', "0"),
            &UID.replace('-', "_"),
            &STATIC[..31],
            &format!("{STATIC}0"),
            &STATIC.replace('0', "-"),
            "11111111-2222-4333-8444-aaaaaaaaaaa\0",
            "11111111-2222-4333-8444-aaaaaaaaaaaé",
            &"0".repeat(1000),
        ] {
            assert_eq!(PodUid::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn messages_survive_the_wire_and_have_one_length() {
        let asked = Question { id: 7, ..Question::new(3, "10.0.0.7".parse().unwrap(), 4711) };
        let bytes = asked.to_bytes();
        assert_eq!(Question::from_bytes(&bytes), Some(asked));
        assert_eq!(asked.address, "::ffff:10.0.0.7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(Question::from_bytes(&bytes[..QUESTION_LEN - 1]), None);
        assert_eq!(Question::from_bytes(&[&bytes[..], b"x"].concat()), None);
        assert_eq!(Question::from_bytes(b""), None);

        let uid = PodUid::parse(UID).unwrap();
        for owner in [SocketOwner::Pod(uid), SocketOwner::NotAPod, SocketOwner::NoRecord, SocketOwner::Several] {
            let answer = Answer { id: u64::MAX, origin: Origin { interface: 9, kubepods: true, owner } };
            let bytes = answer.to_bytes();
            assert_eq!(Answer::from_bytes(&bytes), Some(answer));
            assert_eq!(Answer::from_bytes(&bytes[1..]), None);
        }
        assert_eq!(Answer::from_bytes(&[0; ANSWER_LEN]), None);
    }
}
