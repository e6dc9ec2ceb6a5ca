"""A worker that plays libvirt's: what it does at ``open``, ``start`` and ``close`` is in its first arguments."""

import json
import os
import signal
import socket
import sys
from typing import Any

from benchbox.linux import processes

OUTCOME: dict[str, Any] = {"status": "ok", "stages": {"ready": 5}, "counters": [], "output_tail": "b3V0"}


def answer(connection: socket.socket, request: dict[str, Any], doing: str) -> None:
    if doing == "die":
        sys.exit("libvirt: no such thing")
    if doing == "hang":
        signal.pause()
    replies: list[dict[str, Any]] = [{"id": request["id"], "result": {"pid": os.getpid()}}]
    if doing == "refuse":
        replies = [{"id": request["id"], "error": "no domain"}]
    if doing in ("ready", "done"):
        name = request["order"]["spec"]["name"]
        replies += [{"guest": name, "event": "ready"}] * (doing == "ready")
        replies += [{"guest": name, "event": "done", "outcome": OUTCOME}]
    for reply in replies:
        connection.sendall(json.dumps(reply).encode() + b"\n")
    if request["op"] == "close":
        os._exit(0)


def main() -> None:
    doings = dict(word.split("=") for word in sys.argv[1:-2])
    processes.die_with_parent(int(sys.argv[-1]))
    connection = socket.socket(fileno=int(sys.argv[-2]))
    for line in connection.makefile("rb"):
        request = json.loads(line)
        answer(connection, request, doings.get(request["op"], "reply"))


if __name__ == "__main__":
    main()
