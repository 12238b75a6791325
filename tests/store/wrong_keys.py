"""A hundred thousand wrong keys, as fast as they go, cost the database at most one statement for each hundred.

PostgreSQL itself counts: it logs each statement of the gateway. Standard library only.
"""

import pathlib
import re
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
# pylint: disable=wrong-import-position
from roles import PATIENCE_S, Role, get, make_key
from postgres import fleet

KEYS, WORKERS, AT_ONCE = 100_000, 4, 100


def ask(address, begin, count, refused):
    """Asks with so many keys on one connection, many at a time."""
    host, port = address.split(":")
    answers = 0
    with socket.create_connection((host, int(port)), PATIENCE_S) as connection:
        for at in range(begin, begin + count, AT_ONCE):
            connection.sendall(b"".join(
                b"GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk-sealgate-%064x\r\n\r\n" % number
                for number in range(at, at + AT_ONCE)))
            came = b""
            while came.count(b"HTTP/1.1 ") < AT_ONCE or not came.endswith(b"}"):
                piece = connection.recv(1 << 18)
                if not piece:
                    break
                came += piece
            answers += len(re.findall(rb"HTTP/1\.1 401 ", came))
    refused.append(answers)


def statements(log):
    """How many the gateways' sessions had."""
    return len(re.findall(r"LOG:  (?:statement|execute)\b", log.read_text(encoding="utf-8", errors="replace")))


def main():
    with tempfile.TemporaryDirectory() as name:
        database, node, configs = fleet(sys.argv[1], pathlib.Path(name), 1, "&options[log_statement]=all")
        key = make_key(sys.argv[1], configs[0], "right")
        gateway = Role(sys.argv[1], "gateway", configs[0], configs[0].with_suffix(".log"))
        before, begun, refused = statements(database.log), time.monotonic(), []
        workers = [threading.Thread(target=ask, args=(gateway.address, at * KEYS // WORKERS, KEYS // WORKERS, refused))
                   for at in range(WORKERS)]
        for worker in workers:
            worker.start()
        # Whoever has a key goes on meanwhile.
        served = [get(gateway.address, "/v1/models", key)[0] for _ in range(20)]
        for worker in workers:
            worker.join()
        took, cost = time.monotonic() - begun, statements(database.log) - before
        print(f"{sum(refused)} of {KEYS} wrong keys refused in {took:.1f} s, {KEYS / took:.0f} a second: "
              f"{cost} statements; a right one meanwhile: {set(served)}")
        ok = sum(refused) == KEYS and 0 < cost <= KEYS / 100 and set(served) == {200}
        gateway.stop()
        node.stop()
        database.drop()
    sys.exit(0 if ok else 1)


main()
