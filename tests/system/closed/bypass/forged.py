"""Packets to the node that say they come from the metadata service: whatever the node answers, it sends there."""

from packets import ICMP, ICMPV6, M4, M6, NODE, NODE6, TCP, UDP, datagram, echo, ipv4, ipv6, syn

# Of the node: where a process answers (`answer.py`), and where nobody listens.
ANSWERED, CLOSED = 7, 9


def packets():
    """The name of each route, its packet, and where it goes."""
    for family, build, m, node, ping in (("v4", ipv4, M4, NODE, ICMP), ("v6", ipv6, M6, NODE6, ICMPV6)):
        for name, protocol, payload in (
            ("tcp", TCP, syn(m, node, ANSWERED)),
            ("tcp-closed", TCP, syn(m, node, CLOSED)),
            ("udp", UDP, datagram(m, node, ANSWERED)),
            ("udp-closed", UDP, datagram(m, node, CLOSED)),
            ("ping", ping, echo(m, node)),
        ):
            yield f"from-m-{name}-{family}", build(payload, protocol, m, node), node
