"""Packets to the node with the IMDS address as their source: the node sends its answers to the real IMDS."""

from packets import ICMP, ICMPV6, IMDS4, IMDS6, NODE, NODE6, TCP, UDP, datagram, echo, ipv4, ipv6, syn

# Ports of the node: with a process that answers (`answer.py`), and without a listener.
ANSWERED, CLOSED = 7, 9


def packets():
    """Yields the name of each route, its packet and its destination."""
    for family, build, imds, node, ping in (("v4", ipv4, IMDS4, NODE, ICMP), ("v6", ipv6, IMDS6, NODE6, ICMPV6)):
        for name, protocol, payload in (
            ("tcp", TCP, syn(imds, node, ANSWERED)),
            ("tcp-closed", TCP, syn(imds, node, CLOSED)),
            ("udp", UDP, datagram(imds, node, ANSWERED)),
            ("udp-closed", UDP, datagram(imds, node, CLOSED)),
            ("ping", ping, echo(imds, node)),
        ):
            yield f"from-imds-{name}-{family}", build(payload, protocol, imds, node), node
