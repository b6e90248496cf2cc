#!/usr/bin/env python3
"""The network between the hosts of a test, to be cut, slowed and broken: relay.py NET METADATA NAME=NUMBER...

Host NAME listens at NET.NUMBER:7071 and is reached through here at NET.NUMBER:7072. The others find that address since each host
but the metadata's own reads the metadata through a socket of its own here, METADATA.NAME, which says 7072 for 7071. So the daemons are
what they are. Who connects, and for what, is read in the hello (docs/peer-protocol.md).

A cut is silent, as a cable is: what a side sends, its end of the connection too, waits here and arrives when the cut is over, in order, as
TCP would send it again; a connection that was made meanwhile is opened then, if who made it still waits. Commands on stdin, one a line,
each answered by a line; the end of stdin ends all. FROM and TO are names, or 'metadata' for that socket:

  host NAME ID            the id of a host, as the API says it
  cut FROM TO [KIND]      nothing from the one gets to the other; KIND: clients, members, words; default: all of them
  heal FROM TO [KIND]     ends that
  heal                    ends all cuts, delays, garbling and dripping
  delay FROM TO MS        what is sent from now on arrives so much later
  break A B               connections between the two are reset, both ways
  garble FROM TO          a bit in each piece of what is sent from now on is another one
  drip FROM TO            what is sent from now on arrives byte by byte, 20 a second
"""

import asyncio
import socket
import struct
import sys

HELLO_BYTES = 128
KINDS = ("clients", "members", "words", "metadata")
cuts = set()  # (from, to, kind)
delays = {}  # (from, to): seconds
garbled = set()  # (from, to)
dripping = set()  # (from, to)
names = {}  # host id: name
connections = set()
changed = None  # set and made anew at each command


class Connection:
    def __init__(self, near, far, kind, near_writer):
        self.near, self.far, self.kind = near, far, kind
        self.writers = [near_writer]
        connections.add(self)

    def abort(self):
        for writer in self.writers:
            if sock := writer.get_extra_info("socket"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        connections.discard(self)


async def until_passable(*links):
    while any(link in cuts for link in links):
        await changed.wait()


async def pump(reader, writer, link, change):
    """Until the sender's end, which is told too, whatever the other direction has still to say."""
    loop = asyncio.get_running_loop()
    waiting = asyncio.Queue(64)

    async def read():
        try:
            while data := await reader.read(65536):
                await waiting.put((loop.time() + delays.get(link[:2], 0), change(data)))
        except ConnectionError:
            pass
        await waiting.put((loop.time() + delays.get(link[:2], 0), b""))

    reading = asyncio.create_task(read())
    try:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0, due - loop.time()))
            await until_passable(link)
            if not data:
                break
            if link[:2] in garbled:
                data = bytes([data[0] ^ 1]) + data[1:]
            while link[:2] in dripping and data:
                writer.write(data[:1])
                data = data[1:]
                await asyncio.sleep(0.05)
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def join(connection, reader, far_reader, first, out=bytes, back=bytes):
    near, far = connection.writers
    far.write(out(first))
    there = (connection.near, connection.far, connection.kind)
    here = (connection.far, connection.near, connection.kind)
    await asyncio.gather(pump(reader, far, there, out), pump(far_reader, near, here, back))
    connections.discard(connection)


async def kept_until_its_end(reader, kept):
    while data := await reader.read(65536):
        kept += data


async def opened(reader, writer, near, far, kind, kept, connect):
    """The connection to the far side, once both directions are open; None where who connects is gone before."""
    connection = Connection(near, far, kind, writer)
    passable = asyncio.create_task(until_passable((near, far, kind), (far, near, kind)))
    given_up = asyncio.create_task(kept_until_its_end(reader, kept))
    await asyncio.wait((passable, given_up), return_when=asyncio.FIRST_COMPLETED)
    alive = passable.done() and not given_up.done()
    passable.cancel()
    given_up.cancel()
    await asyncio.gather(passable, given_up, return_exceptions=True)
    try:
        if alive:
            far_reader, far_writer = await connect()
            connection.writers.append(far_writer)
            return connection, far_reader
    except OSError:
        pass
    connection.abort()
    return None, None


def host_relay(name, address):
    async def accepted(reader, writer):
        try:
            hello = bytearray(await reader.readexactly(HELLO_BYTES))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        features, host, attachment = (struct.unpack_from("<Q", hello, at)[0] for at in (24, 48, 80))
        kind = "words" if features & 1 else "clients" if attachment else "members"
        connect = lambda: asyncio.open_connection(address, 7071)
        connection, far = await opened(reader, writer, names.get(host, "?"), name, kind, hello, connect)
        if connection:
            await join(connection, reader, far, hello)

    return accepted


def metadata_relay(name, path):
    async def accepted(reader, writer):
        asked = bytearray()
        connect = lambda: asyncio.open_unix_connection(path)
        connection, far = await opened(reader, writer, name, "metadata", "metadata", asked, connect)
        if connection:
            await join(connection, reader, far, asked, changer(b':7072"', b':7071"'), changer(b':7071"', b':7072"'))

    return accepted


def changer(one, other):
    """Of a text that goes by in pieces; HTTP says how long a text is, so it is no longer afterwards."""
    kept = b""

    def change(data):
        nonlocal kept
        data = (kept + data).replace(one, other)
        length = next(n for n in range(len(one) - 1, -1, -1) if data.endswith(one[:n]))
        kept = data[len(data) - length :]
        return data[: len(data) - length]

    return change


def links_of(near, far, kind=None):
    return {(near, far, one) for one in ([kind] if kind else KINDS)}


def command(verb, *words):
    if verb == "host":
        names[int(words[1].split("-")[-1], 16)] = words[0]
    elif verb == "cut":
        cuts.update(links_of(*words))
    elif verb == "heal" and words:
        cuts.difference_update(links_of(*words))
    elif verb == "heal":
        for faults in cuts, delays, garbled, dripping:
            faults.clear()
    elif verb == "delay":
        delays[words[0], words[1]] = int(words[2]) / 1000
    elif verb in ("garble", "drip"):
        {"garble": garbled, "drip": dripping}[verb].add((words[0], words[1]))
    elif verb == "break":
        for connection in [known for known in connections if {known.near, known.far} == set(words)]:
            connection.abort()
    else:
        raise ValueError(verb)


async def main(net, metadata, *hosts):
    global changed
    changed = asyncio.Event()
    for name, number in (host.split("=") for host in hosts):
        address = f"{net}.{number}"
        await asyncio.start_server(host_relay(name, address), address, 7072)
        await asyncio.start_unix_server(metadata_relay(name, metadata), f"{metadata}.{name}")
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    print("ready", flush=True)
    while line := await stdin.readline():
        command(*line.decode().split())
        changed.set()
        changed = asyncio.Event()
        print("done", flush=True)


asyncio.run(main(*sys.argv[1:]))
