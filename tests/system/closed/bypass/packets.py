"""Packets to the IMDS as a process builds them that ignores all rules."""

import socket
import struct

IMDS4, IMDS6 = "169.254.169.254", "fd00:ec2::254"
NODE, NODE6 = "10.8.0.1", "fd00:8::1"
# IANA protocol numbers.
TCP, UDP, ICMP, ICMPV6, IPIP, IPV6_ROUTING, IPV6_FRAGMENT = 6, 17, 1, 58, 4, 43, 44


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(payload, protocol, source, to=IMDS4, options=b"", fragment=0):
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x40 + 5 + len(options) // 4, 0, 20 + len(options) + len(payload), 7, fragment, 64, protocol,
        0, socket.inet_aton(source), socket.inet_aton(to)) + options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def ipv6(payload, protocol, source, to=IMDS6):
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to)
    return struct.pack("!IHBB", 0x60000000, len(payload), protocol, 64) + addresses + payload


def pseudo(source, to, protocol, length):
    if ":" in to:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to)
        return ends + struct.pack("!IxxxB", length, protocol)
    return socket.inet_aton(source) + socket.inet_aton(to) + struct.pack("!BBH", 0, protocol, length)


def syn(source, to=IMDS4, port=80):
    segment = struct.pack("!HHIIBBHHH", 33333, port, 1000, 0, 0x50, 2, 0xFFFF, 0, 0)
    total = checksum(pseudo(source, to, TCP, len(segment)) + segment)
    return segment[:16] + struct.pack("!H", total) + segment[18:]


def datagram(source, to, port):
    header = struct.pack("!HHH", 33333, port, 8)
    return header + struct.pack("!H", checksum(pseudo(source, to, UDP, 8) + header))


def echo(source, to):
    """Returns an echo request, as `ping` sends it."""
    six = ":" in to
    message = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 1, 1)
    total = checksum(pseudo(source, to, ICMPV6, len(message)) + message if six else message)
    return message[:2] + struct.pack("!H", total) + message[4:]


def in_fragments(source, to):
    """Returns a SYN in two fragments, neither of which is a SYN by itself."""
    segment = syn(source, to) + bytes(12)
    pieces = [(0, segment[:24], 1), (3, segment[24:], 0)]
    if ":" in to:
        headers = [struct.pack("!BBHI", TCP, 0, offset << 3 | more, 7) for offset, _, more in pieces]
        return [ipv6(header + piece, IPV6_FRAGMENT, source, to) for header, (_, piece, _) in zip(headers, pieces)]
    return [ipv4(piece, TCP, source, to, fragment=more << 13 | offset) for offset, piece, more in pieces]


def ethernet(packet, mac, source=bytes(6), kind=0x0800, tags=()):
    tagged = b"".join(struct.pack("!HH", tag, number) for tag, number in tags)
    return bytes.fromhex(mac.replace(":", "")) + source + tagged + struct.pack("!H", kind) + packet


def lsrr(kind):
    """Returns a loose (131) or strict (137) source route: the receiver must forward the packet to the IMDS."""
    return struct.pack("!BBB4sB", kind, 7, 4, socket.inet_aton(IMDS4), 0)


def segments():
    """Returns a segment routing header (RFC 8754) with the destination of the packet, and then the IMDS."""
    route = socket.inet_pton(socket.AF_INET6, IMDS6) + socket.inet_pton(socket.AF_INET6, NODE6)
    return struct.pack("!BBBBBBH", TCP, 4, 4, 1, 1, 0, 0) + route
