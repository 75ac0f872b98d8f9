//! Who opened a connection: what the worker asks of the parent, and what it is told. Both are of one size and come as
//! one datagram each, so that the parent has nothing to parse: any bytes of the right length are a question.

use std::{fmt, net::IpAddr};

/// Longest UID of a pod: a UUID in its usual form (RFC 9562).
pub(crate) const UID_LEN: usize = 36;
/// A UUID without its hyphens: the UID of a pod that the kubelet reads from a file of its own.
const STATIC_UID_LEN: usize = 32;
/// Where a UUID has its hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The UID of a pod, as its cgroup is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodUid([u8; UID_LEN]);

impl PodUid {
    /// `None` when it is neither a UUID nor the hash that static pods have.
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

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        // Digits and hyphens only.
        self.0.get(..self.len()).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// As bytes, filled up with zeros.
    pub(crate) const fn bytes(&self) -> &[u8; UID_LEN] {
        &self.0
    }

    /// Whether it is a static pod's: the kubelet's own, by a hash of its file. The API server knows a mirror of such a
    /// pod by another UID, and anybody's mirror can claim any hash.
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

/// Who opened this connection?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    /// The answer's will be the same.
    pub(crate) id: u64,
    /// The interface that the connection came in by, or `abi::BY_HOOK_NODE`, `abi::BY_HOOK_POD`.
    pub(crate) interface: u32,
    /// The client's address, as 16 bytes.
    pub(crate) address: [u8; 16],
    /// The client's port.
    pub(crate) port: u16,
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The question's.
    pub(crate) id: u64,
    /// What is known.
    pub(crate) origin: Origin,
}

/// What the kernel knows of the socket that opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The interface that the first packet came in by: a port, where the connection's own is a bridge. 0: not known.
    pub(crate) interface: u32,
    /// Whether pods have cgroups that the kernel programs know.
    pub(crate) kubepods: bool,
    /// Whose it is.
    pub(crate) owner: SocketOwner,
}

/// Whose socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketOwner {
    /// A pod's.
    Pod(PodUid),
    /// No pod's: its cgroup is none of a pod, or the kernel told none.
    Nobody,
    /// There is no record of the connection.
    NoRecord,
    /// More than one port of the bridge has a record of such a connection.
    Several,
}

/// Bytes of a [`Question`].
pub(crate) const QUESTION_LEN: usize = 8 + 4 + 16 + 2;
/// Bytes of an [`Answer`].
pub(crate) const ANSWER_LEN: usize = 8 + 4 + 1 + 1 + UID_LEN;

const POD: u8 = 1;
const NOBODY: u8 = 2;
const NO_RECORD: u8 = 3;
const SEVERAL: u8 = 4;

impl Question {
    /// About a connection from this address and port.
    pub(crate) const fn new(interface: u32, address: IpAddr, port: u16) -> Self {
        let address = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self { id: 0, interface, address, port }
    }

    /// As it is sent.
    pub(crate) fn to_bytes(self) -> [u8; QUESTION_LEN] {
        let Self { id, interface, address, port } = self;
        joined([&id.to_ne_bytes(), &interface.to_ne_bytes(), &address, &port.to_ne_bytes()])
    }

    /// Of a datagram; `None` when it has another length.
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
    /// As it is sent.
    pub(crate) fn to_bytes(self) -> [u8; ANSWER_LEN] {
        let Self { id, origin: Origin { interface, kubepods, owner } } = self;
        let (kind, uid) = match owner {
            SocketOwner::Pod(uid) => (POD, *uid.bytes()),
            SocketOwner::Nobody => (NOBODY, [0; UID_LEN]),
            SocketOwner::NoRecord => (NO_RECORD, [0; UID_LEN]),
            SocketOwner::Several => (SEVERAL, [0; UID_LEN]),
        };
        joined([&id.to_ne_bytes(), &interface.to_ne_bytes(), &[u8::from(kubepods)], &[kind], &uid])
    }

    /// Of a datagram; `None` when it is none.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (interface, rest) = rest.split_first_chunk()?;
        let ([kubepods, kind], rest) = rest.split_first_chunk()?;
        let uid: [u8; UID_LEN] = rest.try_into().ok()?;
        let owner = match *kind {
            POD => SocketOwner::Pod(PodUid::from_bytes(uid)?),
            NOBODY => SocketOwner::Nobody,
            NO_RECORD => SocketOwner::NoRecord,
            SEVERAL => SocketOwner::Several,
            _ => return None,
        };
        let (interface, kubepods) = (u32::from_ne_bytes(*interface), *kubepods != 0);
        Some(Self { id: u64::from_ne_bytes(*id), origin: Origin { interface, kubepods, owner } })
    }
}

/// `LEN` must be the sum of the parts' lengths.
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
    fn a_uid_is_a_uuid_or_a_static_pods_hash() {
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
    fn what_is_sent_is_what_is_received_and_has_one_length() {
        let asked = Question { id: 7, ..Question::new(3, "10.0.0.7".parse().unwrap(), 4711) };
        let bytes = asked.to_bytes();
        assert_eq!(Question::from_bytes(&bytes), Some(asked));
        assert_eq!(asked.address, "::ffff:10.0.0.7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(Question::from_bytes(&bytes[..QUESTION_LEN - 1]), None);
        assert_eq!(Question::from_bytes(&[&bytes[..], b"x"].concat()), None);
        assert_eq!(Question::from_bytes(b""), None);

        let uid = PodUid::parse(UID).unwrap();
        for owner in [SocketOwner::Pod(uid), SocketOwner::Nobody, SocketOwner::NoRecord, SocketOwner::Several] {
            let told = Answer { id: u64::MAX, origin: Origin { interface: 9, kubepods: true, owner } };
            let bytes = told.to_bytes();
            assert_eq!(Answer::from_bytes(&bytes), Some(told));
            assert_eq!(Answer::from_bytes(&bytes[1..]), None);
        }
        assert_eq!(Answer::from_bytes(&[0; ANSWER_LEN]), None);
    }
}
