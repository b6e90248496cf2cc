#!/usr/bin/env python3
"""A late message, as a former primary would send it: stray.py ADDRESS CLUSTER HOST VOLUME FROM TO NUMBER BYTE

Says hello as HOST at ADDRESS, sends the replica TO a write of 4 KiB of BYTE at offset 0 of VOLUME under NUMBER, from the replica FROM, and
prints what was answered: "applied", or the error's number (docs/peer-protocol.md). Ids as the API says them.
"""

import socket
import struct
import sys

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def header(size, kind, fields):
    made = bytearray(size)
    struct.pack_into("<4sHB", made, 0, b"UBLP", 1, kind)
    for offset, form, value in fields:
        struct.pack_into("<" + form, made, offset, value)
    struct.pack_into("<I", made, 8, crc32c(made))
    return bytes(made)


def received(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            sys.exit("closed")
        data += more
    return data


def number_of(text):
    return int(text.split("-")[-1], 16)


address, *words, byte = sys.argv[1:]
cluster, host, volume, sender, to, number = (number_of(word) for word in words)
boot = bytes.fromhex(open("/proc/sys/kernel/random/boot_id").read().strip().replace("-", ""))
payload = bytes([int(byte)]) * 4096
sock = socket.create_connection((address, 7071), timeout=20)
sock.sendall(header(128, 1, [(16, "H", 1), (18, "H", 1), (40, "Q", cluster), (48, "Q", host), (56, "Q", volume), (64, "16s", boot)]))
fields = [(16, "I", crc32c(payload)), (20, "I", len(payload)), (24, "B", 5), (25, "B", 2), (48, "Q", volume), (56, "Q", sender)]
fields += [(64, "Q", to), (88, "Q", number), (96, "Q", 1), (104, "Q", 1), (112, "Q", 77), (144, "Q", 0), (152, "Q", len(payload))]
sock.sendall(header(192, 4, fields) + payload)
while True:
    start = received(sock, 12)
    kind = start[6]
    rest = received(sock, {1: 128, 2: 64, 3: 16, 4: 192}[kind] - 12)
    frame = start + rest
    if kind == 2:
        sys.exit(f"refused, reason {struct.unpack_from('<H', frame, 20)[0]}")
    if kind == 4:
        record, words_, ids = struct.unpack_from("<H", frame, 26)[0], *struct.unpack_from("<II", frame, 32)
        received(sock, record + 12 * words_ + 56 * ids + struct.unpack_from("<I", frame, 20)[0])
        if frame[24] == 6 and struct.unpack_from("<Q", frame, 112)[0] == 77:
            failed = struct.unpack_from("<I", frame, 28)[0] & 0x100
            print(struct.unpack_from("<H", frame, 40)[0] if failed else "applied")
            break
