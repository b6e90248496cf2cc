#!/usr/bin/env python3
"""Seeds for the fuzzers: one valid conversation and the odd ones, a file each.  make_seeds.py FOLDER"""
import os
import struct
import sys

MAGIC = b"IHAVEOPT"


def option(number, data=b""):
    return MAGIC + struct.pack(">II", number, len(data)) + data


def info(name, infos=()):
    return struct.pack(">I", len(name)) + name + struct.pack(">H", len(infos)) + b"".join(struct.pack(">H", i) for i in infos)


def context(name, queries):
    body = struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries))
    return body + b"".join(struct.pack(">I", len(q)) + q for q in queries)


def request(command, offset, length, flags=0, cookie=1, payload=b""):
    return struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length) + payload


def write(folder, name, data):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)


def main():
    root = sys.argv[1]
    flags = struct.pack(">I", 3)
    options = {
        "go": option(7, info(b"disk", (0, 1, 2, 3))),
        "info": option(6, info(b"disk", (3,))) + option(6, info(b"nope")),
        "list": option(3) + option(3, b"x"),
        "name": option(1, b"disk"),
        "abort": option(2),
        "tls": option(5) + option(5, b"x"),
        "contexts": option(8) + option(9, context(b"disk", ())) + option(10, context(b"disk", (b"base:allocation", b"a:b"))),
        "unknown": option(4) + option(11) + option(0xFFFFFFFF, b"data"),
        "lengths": option(6, struct.pack(">I", 0xFFFFFFFF) + b"disk") + option(10, context(b"", (b"base:",))),
    }
    folder = os.path.join(root, "handshake")
    for name, data in options.items():
        for piece in (0, 15, 255):
            write(folder, f"{name}-{piece}", bytes([piece]) + flags + data + options["go"])
    write(folder, "all", b"\x07" + flags + b"".join(options[n] for n in ("list", "tls", "contexts", "info", "unknown", "go")))
    write(folder, "old", b"\x00" + bytes(4) + options["name"])
    commands = {
        "read": request(0, 4096, 4096) + request(0, 1, 3) + request(0, 0, 700000) + request(0, 0, 512, 4),
        "write": request(1, 0, 512, 0, 2, bytes(512)) + request(1, 511, 2, 1, 3, b"ab"),
        "large": request(1, 100, 600000, 0, 2, bytes(600000)),
        "flush": request(3, 0, 0) + request(3, 1, 0),
        "trim": request(4, 0, 65536) + request(4, 5, 1000),
        "cache": request(5, 0, 65536),
        "zeroes": request(6, 0, 65536, 1) + request(6, 3, 600, 2) + request(6, 0, 512, 16) + request(6, 3, 100),
        "status": request(7, 0, 4 << 20) + request(7, 5, 100, 8),
        "beyond": request(0, 1 << 63, 512) + request(6, (1 << 64) - 512, 0xFFFFFFFF) + request(1, 1 << 40, 8, 0, 1, bytes(8)),
        "unknown": request(99, 0, 0) + request(0, 0, 512, 0xFFFF),
        "disconnect": request(0, 0, 512) + request(2, 0, 0),
    }
    folder = os.path.join(root, "transmission")
    for name, data in commands.items():
        for choice in (0, 3, 7, 11, 19, 32, 43):
            write(folder, f"{name}-{choice}", bytes([choice, choice % 5]) + data + request(0, 0, 512) + request(2, 0, 0))
    write(folder, "all", bytes([11, 0]) + b"".join(commands[n] for n in sorted(commands) if n != "disconnect"))


main()
