"""Runs the command line and writes down every socket that is asked for, before anybody answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

asked: list[str] = []


def record(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if isinstance(arguments[1], tuple):  # a path is a socket of this machine
            asked.append(f"{event} {arguments[1]!r}")
    elif event.startswith("socket.get") and event != "socket.gethostname":
        asked.append(f"{event} {arguments[0]!r}")


if __name__ == "__main__":
    sys.addaudithook(record)
    from flatguard.cli.app import main

    told, *commands = sys.argv[1:]
    for command in json.loads(commands[0]):
        print(f"$ {' '.join(command)}", file=sys.stderr)
        try:
            main(command)
        except SystemExit as stop:
            print(f"= {stop.code or 0}", file=sys.stderr)
    Path(told).write_text(json.dumps(asked))
