"""Packets to the node that say they come from the metadata service: whatever the node answers, it sends there."""

from packets import ICMP, ICMPV6, IMDS4, IMDS6, NODE, NODE6, TCP, UDP, datagram, echo, ipv4, ipv6, syn

# Of the node: where a process answers (`answer.py`), and where nobody listens.
ANSWERED, CLOSED = 7, 9


def packets():
    """The name of each route, its packet, and where it goes."""
    for family, build, imds, node, ping in (("v4", ipv4, IMDS4, NODE, ICMP), ("v6", ipv6, IMDS6, NODE6, ICMPV6)):
        for name, protocol, payload in (
            ("tcp", TCP, syn(imds, node, ANSWERED)),
            ("tcp-closed", TCP, syn(imds, node, CLOSED)),
            ("udp", UDP, datagram(imds, node, ANSWERED)),
            ("udp-closed", UDP, datagram(imds, node, CLOSED)),
            ("ping", ping, echo(imds, node)),
        ):
            yield f"from-imds-{name}-{family}", build(payload, protocol, imds, node), node
