//! Verdicts of the programs on packets and connections to the IMDS, and their counters.

use core::hint::black_box;

/// Defines [`Reason`] and everything that has one entry for each reason: a row is its documentation, its variant, the
/// index of its counter, and its name.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $index:literal, $name:literal;)+) => {
        /// Verdict on a packet to the IMDS, or on a `connect` to it. The discriminant is the index into
        /// [`Counters::packets`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])+ $variant = $index,)+
        }

        impl Reason {
            /// All reasons, in the order of their indexes.
            pub const ALL: [Self; REASONS] = [$(Self::$variant),+];

            /// Returns the reason's name in metrics and tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        /// Number of reasons.
        pub const REASONS: usize = [$($index),+].len();

        impl Counters {
            /// Counts one packet.
            ///
            /// Each counter has a branch with a fixed offset, never a computed one: for programs of a process without
            /// CAP_PERFMON the verifier refuses pointer arithmetic whose operand differs between paths
            /// (kernel/bpf/verifier.c, `sanitize_ptr_alu`).
            #[inline(always)]
            pub fn count(&mut self, reason: Reason) {
                match reason {
                    $(Reason::$variant => {
                        self.packets[$index] += 1;
                        // Keeps the optimiser from merging the branches into one computed offset.
                        black_box(());
                    })+
                }
            }
        }
    };
}

reasons! {
    /// Assigned to the agent's listener: a new connection, or a packet of an unknown one, which the listener resets.
    Listener = 0, "listener";
    /// Assigned to the socket of its connection: established, half-open or in TIME_WAIT.
    Connection = 1, "connection";
    /// Dropped: not TCP (an IPv6 extension header included), or not to port 80.
    NotHttp = 2, "not-http";
    /// Dropped: a fragment, a bad header length, a VLAN tag, or truncated.
    Malformed = 3, "malformed";
    /// Dropped: from an address that no pod can have. A packet from the IMDS is dropped whatever
    /// its destination, unless the node's own route to the IMDS uses the interface.
    BadSource = 4, "bad-source";
    /// Dropped: no agent is listening.
    NoListener = 5, "no-listener";
    /// Dropped: the kernel refused the assignment.
    NotAssigned = 6, "not-assigned";
    /// Dropped by the backstop: arrived on an interface without the TC program.
    Unattached = 7, "unattached";
    /// Dropped on a bridge port: the frame is not addressed to the bridge, so it would leave by another port.
    NotToBridge = 8, "not-to-bridge";
    /// Dropped by the guard on egress: forwarded past the fence.
    Forwarded = 9, "forwarded";
    /// Dropped by the guard on egress: sent by a socket of a pod that is not exempt.
    PodSocket = 10, "pod-socket";
    /// Dropped by the guard on ingress: the network must not reach the node's IMDS.
    FromNetwork = 11, "from-network";
    /// A `connect` of a pod's process, redirected to the agent's listener.
    Connect = 12, "connect";
    /// A `connect` of a pod's process, refused: no agent is listening, or it was not TCP to port 80.
    ConnectRefused = 13, "connect-refused";
}

impl Reason {
    /// Returns whether the packet was dropped, or the `connect` refused.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        !matches!(self, Self::Listener | Self::Connection | Self::Connect)
    }
}

/// Packets to the IMDS by [`Reason`], on one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Counters {
    /// Indexed by `Reason as usize`.
    pub packets: [u64; REASONS],
}

// The kernel copies these bytes as they are, so there must be no padding.
const _: () = assert!(size_of::<Counters>() == 8 * REASONS && align_of::<Counters>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_at_their_indexes() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.name());
        }
    }

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            let mut counters = Counters::default();
            counters.count(reason);
            let mut expected = [0; REASONS];
            expected[index] = 1;
            assert_eq!(counters.packets, expected, "{}", reason.name());
        }
    }
}
