"""Decapsulates IP-in-IP and forwards the inner packets, as a neighbour that cooperates with the sender would."""

import socket

incoming = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
outgoing = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
print("ready", flush=True)
while True:
    packet = incoming.recv(65535)
    inner = packet[(packet[0] & 15) * 4:]
    try:
        outgoing.sendto(inner, (socket.inet_ntoa(inner[16:20]), 0))
    except OSError as error:
        print(error, flush=True)
    print("relayed", flush=True)
