//! Why a packet or a connection to M went where it went, and how often.

/// What became of a packet to M, or of a `connect` to it. The discriminant is the index into [`Counters::packets`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Reason {
    /// Handed to the agent's listener: a new connection, or a packet of one that the node doesn't know (reset there).
    Listener = 0,
    /// Handed to the socket that it belongs to: established, half-open or in TIME_WAIT.
    Connection = 1,
    /// Dropped: not TCP (an IPv6 extension header included), or not to port 80.
    NotHttp = 2,
    /// Dropped: a fragment, a bad header length, a VLAN tag, or cut short.
    Malformed = 3,
    /// Dropped: from an address that no pod can own; from M, to whomever.
    BadSource = 4,
    /// Dropped: no agent listens.
    NoListener = 5,
    /// Dropped: the kernel refused the assignment.
    NotAssigned = 6,
    /// Dropped by the backstop: the packet came by an interface without the TC program.
    Unattached = 7,
    /// Dropped on a port of a bridge: addressed to another station than the bridge, so it would leave by another port.
    NotToBridge = 8,
    /// Dropped by the guard on its way out: it was forwarded past the fence.
    Forwarded = 9,
    /// Dropped by the guard on its way out: sent by a socket of a pod that must not have the node's role.
    PodSocket = 10,
    /// Dropped by the guard on its way in: the network has no business with the node's metadata service.
    FromNetwork = 11,
    /// A `connect` of a pod's process, sent to the agent's listener instead.
    Connect = 12,
    /// A `connect` of a pod's process, refused: no agent listens, or it was not TCP to port 80.
    ConnectRefused = 13,
}

impl Reason {
    /// All reasons, in the order of their indexes.
    pub const ALL: [Self; REASONS] = [
        Self::Listener,
        Self::Connection,
        Self::NotHttp,
        Self::Malformed,
        Self::BadSource,
        Self::NoListener,
        Self::NotAssigned,
        Self::Unattached,
        Self::NotToBridge,
        Self::Forwarded,
        Self::PodSocket,
        Self::FromNetwork,
        Self::Connect,
        Self::ConnectRefused,
    ];

    /// The reason's name in metrics and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Connection => "connection",
            Self::NotHttp => "not-http",
            Self::Malformed => "malformed",
            Self::BadSource => "bad-source",
            Self::NoListener => "no-listener",
            Self::NotAssigned => "not-assigned",
            Self::Unattached => "unattached",
            Self::NotToBridge => "not-to-bridge",
            Self::Forwarded => "forwarded",
            Self::PodSocket => "pod-socket",
            Self::FromNetwork => "from-network",
            Self::Connect => "connect",
            Self::ConnectRefused => "connect-refused",
        }
    }

    /// Whether the packet was dropped, or the `connect` refused.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        !matches!(self, Self::Listener | Self::Connection | Self::Connect)
    }
}

/// Number of reasons.
pub const REASONS: usize = 14;

/// Packets to M by [`Reason`], on one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Counters {
    /// Indexed by `Reason as usize`.
    pub packets: [u64; REASONS],
}

// The kernel copies these bytes as they lie: no padding, no surprise.
const _: () = assert!(size_of::<Counters>() == 8 * REASONS && align_of::<Counters>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_at_their_indexes() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.name());
        }
    }
}
