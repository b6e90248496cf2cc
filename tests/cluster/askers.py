#!/usr/bin/env python3
"""Hosts that ask at the same moment, each at its own daemon's API, and what each of them was told.

askers.py permissions FIRST COUNT SOCKET=HOST[=INCARNATION]...
    Asks for the resources r-FIRST to r-COUNT, each at the same moment for all hosts; prints "RESOURCE HOST..." of those to whom it was
    granted.
askers.py numbers ROUNDS VOLUME SOCKET=REPLICA...
    Proposes the next number of VOLUME, with REPLICA as primary, at the same moment at all of them; prints "NUMBER REPLICA..." of those
    whose proposal was authorized. Equal and lower numbers are proposed after it; who is authorized there is printed as "again NUMBER".
"""

import http.client
import json
import socket
import sys
import threading


class Api(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


def ask(path, method, url, body=None):
    connection = Api(path)
    connection.request(method, url, json.dumps(body) if body else None)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def at_once(asking):
    """What each of the functions returned, called at the same moment."""
    barrier, told = threading.Barrier(len(asking)), [None] * len(asking)

    def run(i):
        barrier.wait()
        told[i] = asking[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(asking))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def permissions(first, count, *askers):
    hosts = [(asker.split("=") + ["rep-0000000000000000" + format(i + 1, "x")])[:3] for i, asker in enumerate(askers)]
    for number in range(int(first), int(count) + 1):
        name = f"r-{number}"
        body = [{"ResourceId": name, "HostId": host, "Incarnation": incarnation} for _, host, incarnation in hosts]
        told = at_once([lambda i=i: ask(hosts[i][0], "POST", "/v1/permissions", body[i]) for i in range(len(hosts))])
        for answer in told:
            if "Granted" not in answer:
                sys.exit(f"{name}: {answer}")
        print(name, *(host for (_, host, _), answer in zip(hosts, told) if answer["Granted"]))


def numbers(rounds, volume, *askers):
    hosts = [asker.split("=") for asker in askers]
    url = f"/v1/volumes/{volume}/membership"

    def propose(i, now, number):
        path, replica = hosts[i]
        membership = {**now, "Number": number, "Primary": replica}
        return ask(path, "POST", url, {"Proposer": replica, "BaseNumber": now["Number"], "Membership": membership})

    for _ in range(int(rounds)):
        now = ask(hosts[0][0], "GET", url)
        number = now["Number"] + 1
        told = at_once([lambda i=i: propose(i, now, number) for i in range(len(hosts))])
        print(number, *(replica for (_, replica), answer in zip(hosts, told) if answer.get("Verdict") == "authorized"))
        for i in range(len(hosts)):
            for again in (number, number - 1):
                base = {**now, "Number": again - 1}
                if propose(i, base, again).get("Verdict") == "authorized":
                    print("again", again)


{"permissions": permissions, "numbers": numbers}[sys.argv[1]](*sys.argv[2:])
