"""Calls the IMDS as a process of a pod would, and prints the result as JSON.

    call.py tcp|udp ADDRESS [--port PORT]      connect, report the peer, request the role list
    call.py again ADDRESS OTHER PORT           the same, then connect the socket to another address: reports that peer
    call.py option LEVEL NAME [--length N]     setsockopt on a packet socket
    call.py option32 LEVEL NAME                the same by a 32-bit system call
"""

import argparse
import ctypes
import errno
import json
import mmap
import os
import socket
import sys

GET = b"GET /latest/meta-data/iam/security-credentials/ HTTP/1.0\r\n\r\n"
PATIENCE = 1.0


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def request(sock):
    sock.sendall(GET)
    answer = b""
    while part := sock.recv(4096):
        answer += part
    return answer.decode()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("action")
    parser.add_argument("words", nargs="+")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--length", type=int, default=4)
    args = parser.parse_args()
    result = {"error": None, "peer": None, "local": None, "answer": None}
    try:
        if args.action == "option":
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            level, name = (int(word) for word in args.words)
            sock.setsockopt(level, name, (1).to_bytes(4, sys.byteorder).ljust(args.length, b"\0"))
        elif args.action == "option32":
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            level, name = (int(word) for word in args.words)
            setsockopt32(sock, level, name)
            result["answer"] = str(sock.getsockopt(level, name))
        else:
            kind = socket.SOCK_DGRAM if args.action == "udp" else socket.SOCK_STREAM
            sock = socket.socket(family_of(args.words[0]), kind)
            sock.settimeout(PATIENCE)
            sock.connect((args.words[0], args.port))
            result["peer"], result["local"] = sock.getpeername()[:2], sock.getsockname()[:2]
            if args.action == "again":
                # connect(2): AF_UNSPEC dissolves the association of a socket, which may then be connected again.
                unspecified = (0).to_bytes(16, sys.byteorder)
                libc_connect(sock, unspecified)
                sock.connect((args.words[1], int(args.words[2])))
                result["peer"] = sock.getpeername()[:2]
            elif args.action == "tcp":
                result["answer"] = request(sock)
    except OSError as error:
        result["error"] = errno.errorcode.get(error.errno, str(error))
    print(json.dumps(result))


def libc_connect(sock, address):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(sock.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def setsockopt32(sock, level, name):
    """Calls setsockopt by `int 0x80` from a 64-bit process: to the kernel it is the call of a 32-bit one."""
    map_32bit, setsockopt = 0x40, 366  # MAP_32BIT; __NR_setsockopt of i386
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | map_32bit
    low = mmap.mmap(-1, 4096, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    value = ctypes.addressof(ctypes.c_char.from_buffer(low))
    code = b"\x53"  # push rbx
    for register, number in zip(b"\xb8\xbb\xb9\xba\xbe\xbf", (setsockopt, sock.fileno(), level, name, value, 4)):
        code += bytes([register]) + number.to_bytes(4, "little")  # mov eax, ebx, ecx, edx, esi, edi
    code += b"\xcd\x80\x5b\xc3"  # int 0x80; pop rbx; ret
    low[0:4] = (1).to_bytes(4, "little")
    low[16:16 + len(code)] = code
    result = ctypes.CFUNCTYPE(ctypes.c_int)(value + 16)()
    if result < 0:
        raise OSError(-result, os.strerror(-result))


main()
