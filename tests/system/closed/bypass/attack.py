"""Tries to send a packet to the IMDS by one route, as a pod's process would.

    attack.py ROUTE [--interface NAME] [--mac NEXT_HOP] [--tunnel-to ADDRESS] [--moved FROM TO] [--again]

With --moved the process makes its sockets in one control group and uses them in another; with --again it repeats the
attempt until it is killed.

The packet log of the fake IMDS shows whether a packet arrived. Exit code 0: the packets were sent, or refused with
EPERM, which counts as well; the response is printed. Exit code 3: this kernel does not support the route.
"""

import argparse
import ctypes
import errno
import mmap
import select
import socket
import struct
import sys
import time

import forged
from packets import (
    ICMP, ICMPV6, IPIP, IPV6_ROUTING, IMDS4, IMDS6, NODE, NODE6, TCP, UDP, echo, ethernet, in_fragments, ipv4, ipv6,
    lsrr, segments, syn)

GET = b"GET /latest/meta-data/iam/security-credentials/ HTTP/1.0\r\n\r\n"
PATIENCE = 0.3
PATIENCE_WITH_NODE = 20
# Pause between two attempts, in seconds: the machine has other work as well.
PAUSE = 0.02
MPTCP, VXLAN_PORT = 262, 4789
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
MSG_FASTOPEN, TCP_FASTOPEN_CONNECT = 0x20000000, 30
# Unused addresses of the pods' networks: a node refuses its own as a source.
OTHER, OTHER6 = "10.9.0.99", "fd00:9::99"
# Addresses of the first pod, which answers can reach.
POD, POD6 = "10.9.0.1", "fd00:9::1"
# Longer than the packets of any interface.
LONG = bytes(4000)
# Hop-by-hop options without content (RFC 8200).
PADDING = bytes([TCP, 0, 1, 4, 0, 0, 0, 0])
NO_MAC = "00:00:00:00:00:00"


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def own(to):
    """Returns this process's address towards the uplink, of the same family as the IMDS address."""
    probe = socket.socket(family_of(to), socket.SOCK_DGRAM)
    probe.connect(("fd00:8::2" if ":" in to else "10.8.0.2", 9))
    return probe.getsockname()[0]


def converse(sock):
    sock.settimeout(PATIENCE)
    sock.sendall(GET)
    print(sock.recv(4096))


def tcp(to, port=80, protocol=0, device=None):
    sock = socket.socket(family_of(to), socket.SOCK_STREAM, protocol)
    if device:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    sock.settimeout(PATIENCE)
    sock.connect((to, port))
    converse(sock)


def fastopen(to):
    sock = socket.socket(family_of(to), socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.sendto(GET, MSG_FASTOPEN, (to, 80))
    print(sock.recv(4096))


def fastopen_connect(to):
    """connect() returns at once, and the first packet is sent with the first bytes."""
    sock = socket.socket(family_of(to), socket.SOCK_STREAM)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    sock.settimeout(PATIENCE)
    sock.connect((to, 80))
    converse(sock)


def udp(to, port, connected, data=GET):
    sock = socket.socket(family_of(to), socket.SOCK_DGRAM)
    if connected:
        sock.connect((to, port))
        sock.send(data)
    else:
        sock.sendto(data, (to, port))


def ping(to, kind=socket.SOCK_RAW):
    six = ":" in to
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind, ICMPV6 if six else ICMP)
    sock.sendto(echo(own(to), to), (to, 0))


def raw(*packets, to=IMDS4):
    """Sends packets with headers of our own; the kernel routes them."""
    sock = socket.socket(family_of(to), socket.SOCK_RAW, socket.IPPROTO_RAW)
    for packet in packets:
        sock.sendto(packet, (to, 0))


def to_node(packet, node):
    """Sends a packet to the node, then waits for an answer of the process there, which comes after that to the packet."""
    raw(packet, to=node)
    sock = socket.socket(family_of(node), socket.SOCK_DGRAM)
    sock.sendto(b"", (node, forged.ANSWERED))
    if not select.select([sock], [], [], PATIENCE_WITH_NODE)[0]:
        sys.exit("the process of the node does not answer")


def frame(packet, interface, mac, kind=0x0800, tags=(), bypass=False, protocol=None, cooked=False):
    """Sends a frame, past the routing of this namespace."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM if cooked else socket.SOCK_RAW, 0)
    if bypass:
        sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    if cooked:
        sock.sendto(packet, (interface, kind, 0, 0, bytes.fromhex(mac.replace(":", ""))))
        return
    sock.bind((interface, 0))
    # Not from sysfs, which shows the interfaces of the namespace that it was mounted in.
    source = sock.getsockname()[4]
    sock.sendto(ethernet(packet, mac, source, kind, tags), (interface, kind if protocol is None else protocol))


def io_uring_connect(to):
    """Connects with IORING_OP_CONNECT, without a library (include/uapi/linux/io_uring.h)."""
    libc = ctypes.CDLL(None, use_errno=True)
    params = bytearray(120)
    ring = libc.syscall(425, 1, (ctypes.c_char * 120).from_buffer(params))
    if ring < 0:
        sys.exit(3)
    entries, cq_entries = struct.unpack_from("II", params, 0)
    _head, tail, mask, _count, _flags, _dropped, array = struct.unpack_from("7I", params, 40)
    size = array + entries * 4
    submissions = mmap.mmap(ring, max(size, 4096), offset=0)
    requests = mmap.mmap(ring, entries * 64, offset=0x10000000)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 80) + socket.inet_aton(to) + bytes(8)
    buffer = ctypes.create_string_buffer(address, 16)
    requests[0:64] = struct.pack("=BBHiQQ", 16, 0, 0, sock.fileno(), 16, ctypes.addressof(buffer)).ljust(64, b"\0")
    submissions[array:array + 4] = struct.pack("I", 0)
    at = struct.unpack_from("I", submissions, tail)[0]
    submissions[tail:tail + 4] = struct.pack("I", at + 1)
    # Submitted without waiting: an unanswered connect takes minutes.
    if libc.syscall(426, ring, 1, 0, 0, None, 0) != 1:
        raise OSError(ctypes.get_errno(), "io_uring_enter")
    _, writable, _ = select.select([], [sock], [], PATIENCE)
    if writable and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        converse(sock)


def host_form(text):
    """Connects to an address in a notation that curl and browsers accept: octal, decimal, hexadecimal."""
    family, _, _, _, address = socket.getaddrinfo(text, 80, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(address)
    converse(sock)


def vxlan(packet, mac, to):
    """Sends a packet as a peer of the overlay does: in network 7, addressed to the device at the other end."""
    header = struct.pack("!II", 0x08000000, 7 << 8)
    udp(to, VXLAN_PORT, False, header + ethernet(packet, mac))


def move_between(one, other):
    """Makes sockets in one control group from now on, and uses them in the other."""
    make = socket.socket

    def join(group):
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write("0")

    def made(*arguments):
        join(one)
        sock = make(*arguments)
        join(other)
        return sock

    socket.socket = made


def routes(interface, mac, tunnel_to):
    def v4(**options):
        return ipv4(syn(own(IMDS4)), TCP, own(IMDS4), **options)

    def sourced(source):
        return lambda: frame(ipv4(syn(source), TCP, source), interface, mac)

    return {
        "tcp-v4": lambda: tcp(IMDS4),
        "tcp-v6": lambda: tcp(IMDS6),
        "tcp-v4-mapped": lambda: tcp("::ffff:" + IMDS4),
        "tcp-fastopen-v4": lambda: fastopen(IMDS4),
        "tcp-fastopen-v6": lambda: fastopen(IMDS6),
        "tcp-fastopen-connect-v4": lambda: fastopen_connect(IMDS4),
        "tcp-fastopen-connect-v6": lambda: fastopen_connect(IMDS6),
        "tcp-mptcp-v4": lambda: tcp(IMDS4, protocol=MPTCP),
        "tcp-mptcp-v6": lambda: tcp(IMDS6, protocol=MPTCP),
        "tcp-io-uring": lambda: io_uring_connect(IMDS4),
        "tcp-bound-to-device": lambda: tcp(IMDS4, device=interface),
        "tcp-port-8080": lambda: tcp(IMDS4, port=8080),
        "tcp-port-443-v6": lambda: tcp(IMDS6, port=443),
        "host-octal": lambda: host_form("0251.0376.0251.0376"),
        "host-decimal": lambda: host_form("2852039166"),
        "host-hexadecimal": lambda: host_form("0xa9fea9fe"),
        "udp-v4": lambda: udp(IMDS4, 80, False),
        "udp-v6": lambda: udp(IMDS6, 80, False),
        "udp-connected-v4": lambda: udp(IMDS4, 53, True),
        "udp-connected-v6": lambda: udp(IMDS6, 53, True),
        "udp-long-v4": lambda: udp(IMDS4, 80, False, LONG),
        "udp-long-v6": lambda: udp(IMDS6, 80, False, LONG),
        "icmp-v4": lambda: ping(IMDS4),
        "icmp-v6": lambda: ping(IMDS6),
        "icmp-socket": lambda: ping(IMDS4, socket.SOCK_DGRAM),
        "raw-syn-v4": lambda: raw(v4()),
        "raw-syn-v6": lambda: raw(ipv6(syn(own(IMDS6), IMDS6), TCP, own(IMDS6)), to=IMDS6),
        "raw-protocol-v4": lambda: raw(ipv4(b"protocol", 253, own(IMDS4))),
        "raw-extension-header-v6": lambda: raw(ipv6(PADDING + syn(own(IMDS6), IMDS6), 0, own(IMDS6)), to=IMDS6),
        "raw-options": lambda: raw(v4(options=b"\x07\x07\x04\0\0\0\0\0")),
        "raw-source-route-loose": lambda: raw(v4(options=lsrr(131))),
        "raw-source-route-strict": lambda: raw(v4(options=lsrr(137))),
        "raw-fragment-first": lambda: raw(ipv4(syn(own(IMDS4)) + bytes(4), TCP, own(IMDS4), fragment=0x2000)),
        "raw-fragment-later": lambda: raw(ipv4(bytes(24), TCP, own(IMDS4), fragment=0x0003)),
        "raw-fragments-v4": lambda: raw(*in_fragments(own(IMDS4), IMDS4)),
        "raw-fragments-v6": lambda: raw(*in_fragments(own(IMDS6), IMDS6), to=IMDS6),
        "raw-source-route-by-node": lambda: raw(ipv4(syn(POD), TCP, POD, NODE, lsrr(131)), to=NODE),
        "raw-segments-by-node-v6": lambda: raw(
            ipv6(segments() + syn(POD6, IMDS6), IPV6_ROUTING, POD6, NODE6), to=NODE6),
        "raw-ip-in-ip-to-imds": lambda: raw(ipv4(v4(), IPIP, own(IMDS4))),
        "packet-syn-v4": lambda: frame(v4(), interface, mac),
        "packet-syn-v6": lambda: frame(ipv6(syn(own(IMDS6), IMDS6), TCP, own(IMDS6)), interface, mac, kind=0x86DD),
        "packet-cooked": lambda: frame(v4(), interface, mac, cooked=True),
        "packet-qdisc-bypass": lambda: frame(v4(), interface, mac, bypass=True),
        "packet-with-other-protocol": lambda: frame(v4(), interface, mac, protocol=0x88B5),
        "packet-udp": lambda: frame(ipv4(struct.pack("!HHHH", 9, 53, 8, 0), UDP, own(IMDS4)), interface, mac),
        "packet-fragment": lambda: frame(v4(fragment=0x2000), interface, mac),
        "packet-vlan": lambda: frame(v4(), interface, mac, tags=[(0x8100, 5)]),
        "packet-vlan-zero": lambda: frame(v4(), interface, mac, tags=[(0x8100, 0)]),
        "packet-double-vlan": lambda: frame(v4(), interface, mac, tags=[(0x88A8, 5), (0x8100, 0)]),
        "packet-double-vlan-zero": lambda: frame(v4(), interface, mac, tags=[(0x88A8, 0), (0x8100, 0)]),
        "packet-triple-vlan-zero": lambda: frame(v4(), interface, mac, tags=[(0x8100, 0)] * 3),
        # More tags than the programs parse, and as many as Linux 7.3 removes.
        "packet-deep-vlan-zero": lambda: frame(v4(), interface, mac, tags=[(0x8100, 0)] * 8),
        "packet-on-loopback-v4": lambda: frame(ipv4(syn(OTHER), TCP, OTHER), "lo", NO_MAC),
        "packet-on-loopback-v6": lambda: frame(ipv6(syn(OTHER6, IMDS6), TCP, OTHER6), "lo", NO_MAC, kind=0x86DD),
        "source-imds": sourced(IMDS4),
        "source-loopback": sourced("127.0.0.1"),
        "source-node": sourced(NODE),
        "source-other": sourced(OTHER),
        "ip-in-ip": lambda: raw(ipv4(ipv4(syn(POD), TCP, POD), IPIP, own(IMDS4), tunnel_to), to=tunnel_to),
        "vxlan": lambda: vxlan(ipv4(syn(POD), TCP, POD), mac, tunnel_to),
        **{name: lambda packet=packet, to=to: to_node(packet, to) for name, packet, to in forged.packets()},
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("route")
    parser.add_argument("--interface", default="eth0")
    parser.add_argument("--mac", default="ee:ee:ee:ee:ee:ee")
    parser.add_argument("--tunnel-to", default=NODE)
    parser.add_argument("--moved", nargs=2)
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    if arguments.moved:
        move_between(*arguments.moved)
    attack = routes(arguments.interface, arguments.mac, arguments.tunnel_to)[arguments.route]
    attempt(attack)
    while arguments.again:
        print("again", flush=True)
        time.sleep(PAUSE)
        attempt(attack)


def attempt(attack):
    try:
        attack()
    except TimeoutError:
        print("no response")
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOSYS):
            sys.exit(3)
        print(error)


if __name__ == "__main__":
    main()
