"""Opens connections to the IMDS, and sockets connected to it; sends by each of them for every line of input."""

import socket
import sys

IMDS4, IMDS6 = "169.254.169.254", "fd00:ec2::254"
GET = b"GET /latest/meta-data/iam/security-credentials/ HTTP/1.1\r\nHost: imds\r\n\r\n"
PATIENCE = 0.3

held = [socket.create_connection((imds, 80)) for imds in (IMDS4, IMDS6)]
for family, imds in ((socket.AF_INET, IMDS4), (socket.AF_INET6, IMDS6)):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.connect((imds, 80))
    held.append(sock)
print("open", flush=True)
for _ in sys.stdin:
    for sock in held:
        sock.settimeout(PATIENCE)
        try:
            sock.send(GET)
            sock.recv(4096)
        except OSError as error:
            print(error, file=sys.stderr)
    print("sent", flush=True)
