"""A process of the node that answers every client, over TCP and UDP."""

import selectors
import socket

# Echo (RFC 862).
PORT = 7

selector = selectors.DefaultSelector()
for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    listener = socket.create_server((everywhere, PORT), family=family)
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    datagrams.bind((everywhere, PORT))
    selector.register(listener, selectors.EVENT_READ, lambda sock: sock.accept()[0].close())
    selector.register(datagrams, selectors.EVENT_READ, lambda sock: sock.sendto(*sock.recvfrom(4096)))
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        key.data(key.fileobj)
