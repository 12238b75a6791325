"""A disk that fills up under a gateway: what it lets in is written down all the same, and nothing twice.

The gateway's folder, with database and journal, is a small file system of its own. Once it is full, requests go on
as long as the journal has places; then they are refused, before anything is done for them. When there is room
again, each reply that a caller got whole has its row. Mounts a tmpfs: as root, or within `unshare -Urm`.
Standard library only.
"""

import collections
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
# pylint: disable=wrong-import-position
from roles import PATIENCE_S, Role, changed, complete, demo_files, get, make_key, usage

# Places of the journal: those in flight, and those that wait.
IN_FLIGHT, WAITING = 8, 64


def fill(folder):
    """Takes all room there is."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as ballast:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    ballast.write(b"x" * size)
            except OSError:
                pass
    return path


def rows(database):
    """The ids of all rows."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=PATIENCE_S)
    try:
        return [row[0] for row in connection.execute("SELECT request_id FROM usage_row")]
    finally:
        connection.close()


def until(what, is_so):
    """Waits for it."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            sys.exit(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.05)


def ask(gateway, key, count, whole):
    """So many requests; the statuses that came, and each error's code."""
    statuses = collections.Counter()
    for number in range(count):
        reply = complete(gateway.address, key, f"word {number}", stream=number % 2 == 0)
        code = "" if reply.is_whole else json.loads(reply.content)["error"]["code"]
        statuses[f"{reply.status} {code}".strip()] += 1
        if reply.is_whole:
            whole.append(reply.request_id)
    return statuses


def drive(binary, folder, made):
    """What was wrong."""
    gateway = Role(binary, "gateway", made / "gateway.toml", folder / "gateway.log")
    key, whole, flaws = make_key(binary, made / "gateway.toml", "callers"), [], []
    before = ask(gateway, key, 10, whole)
    until("10 rows", lambda: len(rows(made / "sealgate.db")) == 10)
    ballast = fill(made)
    full = ask(gateway, key, 2 * WAITING, whole)
    ready = get(gateway.admin, "/readyz")[0]
    made_full = subprocess.run([binary, "keys", "create", "--config", str(made / "gateway.toml"), "--name", "more"],
                               check=False, capture_output=True, text=True)
    print(f"with room: {dict(before)}; full: {dict(full)}, /readyz {ready}; keys create then: "
          f"{made_full.returncode}, {made_full.stderr.strip()}")
    if set(before) != {"200"} or set(full) - {"200", "503 store_unavailable"} or full["200"] < WAITING:
        flaws.append("other answers than 200 while the journal has places, and 503 store_unavailable then")
    if not full["503 store_unavailable"]:
        flaws.append("the disk was not full")
    if ready != 200:
        flaws.append(f"/readyz is {ready}")
    if made_full.returncode == 0 or "full" not in made_full.stderr:
        flaws.append("keys create does not say that the disk is full")
    # Nobody is there to write it: what waits is found at the start.
    gateway.kill()
    ballast.unlink()
    gateway.start()
    after = ask(gateway, key, 10, whole)
    if set(after) != {"200"}:
        flaws.append(f"with room again: {dict(after)}")
    if gateway.stop() != 0:
        flaws.append("the gateway did not end well")
    kept = rows(made / "sealgate.db")
    reported = usage(binary, made / "gateway.toml", "key")[0]["requests"]
    print(f"with room again: {dict(after)}; {len(whole)} whole replies, {len(kept)} rows, {reported} reported")
    if sorted(kept) != sorted(whole) or reported != len(whole):
        flaws.append(f"{len(set(whole) - set(kept))} replies have no row, {len(set(kept) - set(whole))} rows no reply")
    return flaws


def main():
    if os.environ.get("TEST_FULL_INSIDE") != "1":
        inside = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        os.execvpe((inside or [sys.executable])[0], [*inside, sys.executable, *sys.argv],
                   os.environ | {"TEST_FULL_INSIDE": "1"})
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        disk = folder / "disk"
        made = disk / "demo"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
        try:
            demo_files(binary, made, "sk-demo-0123456789abcdef0123456789abcdef")
            for file in made.glob("sealgate.*"):
                file.unlink()
            port0 = (r'^listen = ".*"$', 'listen = "127.0.0.1:0"')
            configure(made / "node.toml", [port0])
            node = Role(binary, "node", made / "node.toml", folder / "node.log")
            configure(made / "gateway.toml", [
                port0,
                (r'^url = "http://.*$', f'url = "http://{node.address}"'),
                (r"^waiting = .*$", f"waiting = {WAITING}"),
                (r"^in_flight = .*$", f"in_flight = {IN_FLIGHT}"),
            ], '\n[admin]\nlisten = "127.0.0.1:0"\n')
            flaws = drive(binary, folder, made)
            node.stop()
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
    for flaw in flaws:
        print(f"FAILED: {flaw}")
    sys.exit(1 if flaws else 0)


def configure(path, changes, more=""):
    path.write_text(changed(path.read_text(encoding="utf-8"), changes) + more, encoding="utf-8")


main()
