"""Clients that ask a server without pause and check every answer; a process of its own.

    python clients.py PORT CLIENTS REQUESTS EXPECTED.npz

EXPECTED: "x" [n, ...], and for each version "v<number>" [n, ...], what it answers. Prints how many
answers came, how many were not what the version that they name says, and how many were none.
"""

from __future__ import annotations

import json
import socket
import sys
import threading

import numpy as np


def ask(port, requests, known, found, seed):
    """Ask on one connection, in an order of one's own; count what comes."""
    order = np.random.default_rng(seed)
    bodies = [request(row) for row in known["x"]]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = line.makefile("rb")
        for i in order.integers(len(bodies), size=requests):
            line.sendall(bodies[i])
            status, size, head = stream.readline(), 0, 0
            while (field := stream.readline()) != b"\r\n":
                name, _, value = field.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
                elif name.lower() == b"inference-header-content-length":
                    head = int(value)
            data = stream.read(size)
            found["answers"] += 1
            if b" 200 " not in status:
                found["failed"] += 1
                continue
            version = json.loads(data[:head])["model_version"]
            if data[head:] != known[f"v{version}"][i].tobytes():
                found["wrong"] += 1


def request(x):
    """One row, asked for in binary form."""
    said = json.dumps({
        "inputs": [{"name": "x", "shape": [1, *x.shape], "datatype": "FP32",
                    "parameters": {"binary_data_size": x.nbytes}}],
        "parameters": {"binary_data_output": True}}).encode()
    return (f"POST /v2/models/model/infer HTTP/1.1\r\nHost: localhost\r\n"
            f"Inference-Header-Content-Length: {len(said)}\r\n"
            f"Content-Length: {len(said) + x.nbytes}\r\n\r\n").encode() + said + x.tobytes()


def main(port, clients, requests, path):
    known = dict(np.load(path))
    found = [{"answers": 0, "wrong": 0, "failed": 0} for _ in range(clients)]
    threads = [threading.Thread(target=ask, args=(port, requests // clients, known, f, i))
               for i, f in enumerate(found)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps({k: sum(f[k] for f in found) for k in found[0]}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4])
