"""Drives a gateway with mixed requests, and tells whether it stays as it was.

Starts `BINARY demo` once for its files, then a node and a gateway of their own with `[admin]`, asks
them over loopback for SECONDS, and samples /metrics meanwhile. Each of 16 askers rests for PAUSE_MS
between two requests. Standard library only.
"""

import collections
import http.client
import json
import pathlib
import queue
import random
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
# pylint: disable=wrong-import-position
from roles import PATIENCE_S, Role, changed, demo_files

WORKERS = 16
KEY = "sk-soak-0123456789abcdef0123456789abcdef"
ADMIN = '\n[admin]\nlisten = "127.0.0.1:0"\n'
GAUGES = {
    "gateway": ["requests_in_flight", "bodies_held_bytes", "node_requests_in_flight",
                "retries_in_flight"],
    "node": ["requests_in_flight", "buffered_bytes", "engine_requests_in_flight"],
}
# Resident memory may grow by this part after the first fifth, and this many more files may be open.
MAX_GROWTH, MORE_FILES = 0.10, 8
# What the allocator takes and gives back by chance: a role has some 50 MiB, and 5 of them come and go.
NOISE_BYTES = 8 << 20


def configure(path, changes):
    path.write_text(changed(path.read_text(encoding="utf-8"), changes) + ADMIN, encoding="utf-8")


def post(address, body, key=KEY):
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    connection.request("POST", "/v1/completions", body,
                       {"authorization": f"Bearer {key}", "content-type": "application/json"})
    return connection


def request(prompt, stream):
    return json.dumps({"model": "echo", "prompt": prompt, "stream": stream, "max_tokens": 4096})


def unary(address, prompt):
    connection = post(address, request(prompt, False))
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    if reply.status != 200:
        return f"status {reply.status}: {content[:120]!r}"
    said = json.loads(content)["choices"][0]["text"]
    return None if prompt in said else "another text"


def streamed(address, prompt):
    connection = post(address, request(prompt, True))
    reply = connection.getresponse()
    text, done = "", False
    if reply.status != 200:
        return f"status {reply.status}"
    for line in reply:
        if line.startswith(b"data: [DONE]"):
            done = True
        elif line.startswith(b"data: "):
            event = json.loads(line[6:])
            if "error" in event:
                return f"error event {event['error']['code']}"
            text += event["choices"][0]["text"] if event["choices"] else ""
    connection.close()
    if not done:
        return "no [DONE]"
    return None if prompt in text else "another text"


def cancelled(address, prompt):
    """Leaves before the reply, or after its first bytes."""
    connection = post(address, request(prompt * 20, True))
    if random.random() < 0.5:
        connection.getresponse().read(64)
    connection.close()
    return None


def refused(address, prompt):
    key, body, expected = random.choice([
        ("wrong", request(prompt, False), 401),
        (KEY, "{", 400),
        (KEY, request(prompt, False).replace('"echo"', '"absent"'), 404),
    ])
    connection = post(address, body, key)
    reply = connection.getresponse()
    reply.read()
    connection.close()
    return None if reply.status == expected else f"status {reply.status}, not {expected}"


KINDS = [(unary, 40), (streamed, 40), (cancelled, 10), (refused, 10)]


def work(address, until, pause, outcomes):
    counted = collections.Counter()
    kinds, weights = zip(*KINDS)
    while time.monotonic() < until:
        kind = random.choices(kinds, weights)[0]
        prompt = f"number {random.random()} " + "word " * random.choice([1, 10, 100, 1000])
        try:
            flaw = kind(address, prompt.strip())
        except (OSError, http.client.HTTPException, ValueError) as error:
            flaw = repr(error)
        counted[kind.__name__, flaw] += 1
        time.sleep(pause)
    outcomes.put(counted)


def drive(roles, seconds, pause):
    """Asks for so long; gives outcomes by kind, and samples of each role."""
    begin, outcomes, samples = time.monotonic(), queue.Queue(), []
    until = begin + seconds
    workers = [threading.Thread(target=work, args=(roles["gateway"].address, until, pause, outcomes))
               for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    every = max(0.5, min(10.0, seconds / 60))
    while time.monotonic() < until:
        time.sleep(every)
        taken = {name: role.metrics() for name, role in roles.items()}
        samples.append((time.monotonic() - begin, taken))
    for worker in workers:
        worker.join()
    counted = collections.Counter()
    for _ in workers:
        counted += outcomes.get()
    return counted, samples


def settled(role):
    """The gauges that must come back to 0, after a pause at most as long as patience."""
    names = [f"sealgate_{role.role}_{gauge}" for gauge in GAUGES[role.role]]
    end = time.monotonic() + 10
    while True:
        page = role.metrics()
        held = {name: page[name] for name in names if page[name] != 0}
        if not held or time.monotonic() > end:
            return held, page
        time.sleep(0.2)


def middle(pages, role, sample):
    """What a sample mostly was: one burst is no growth."""
    return statistics.median(page[role][sample] for page in pages)


def judge(roles, counted, samples, seconds):
    bad = []
    print("requests by kind and outcome:")
    for (kind, flaw), count in sorted(counted.items(), key=str):
        print(f"  {kind:10} {flaw or 'as it should be'}: {count}")
    unprovoked = sum(count for (_, flaw), count in counted.items() if flaw)
    print(f"requests: {sum(counted.values())}, errors that were not provoked: {unprovoked}")
    if unprovoked:
        bad.append("errors that were not provoked")
    early = [page for at, page in samples if 0.2 * seconds <= at <= 0.3 * seconds]
    late = [page for at, page in samples if at >= 0.9 * seconds]
    for name, role in roles.items():
        held, after = settled(role)
        memory, opened = ([middle(pages, name, sample) for pages in (early, late)] for sample in
                          ("process_resident_memory_bytes", "process_open_fds"))
        growth = memory[1] / memory[0] - 1
        slope = growth * 100 * 3600 / (0.7 * seconds)
        opened.append(after["process_open_fds"])
        print(f"{name}: resident {memory[0] / 2**20:.1f} MiB at 20 %, {memory[1] / 2**20:.1f} MiB at "
              f"the end ({slope:+.1f} %/hour); open files {opened[0]:.0f}, {opened[1]:.0f}, "
              f"{opened[2]:.0f} after a pause; held after it: {held or 'nothing'}")
        if growth > MAX_GROWTH and memory[1] - memory[0] > NOISE_BYTES:
            bad.append(f"{name}: memory grew by {growth:.0%}")
        if min(opened[1:]) > opened[0] + MORE_FILES:
            bad.append(f"{name}: open files grew")
        if held:
            bad.append(f"{name}: gauges above 0")
    return bad


def main():
    numbers = [int(text) for text in sys.argv[2:] if text.isdigit()]
    if len(numbers) != len(sys.argv) - 2 or len(numbers) not in (1, 2) or numbers[0] < 60:
        sys.exit("usage: tests/soak/run.sh BINARY SECONDS [PAUSE_MS], with at least 60 seconds")
    binary, seconds, pause = sys.argv[1], numbers[0], (numbers + [0])[1] / 1000
    with tempfile.TemporaryDirectory() as name:
        folder, roles, bad = pathlib.Path(name), {}, []
        made = folder / "demo"
        demo_files(binary, made, KEY)
        try:
            port0 = (r'^listen = ".*"$', 'listen = "127.0.0.1:0"')
            configure(made / "node.toml", [port0])
            roles["node"] = Role(binary, "node", made / "node.toml", folder / "node.log")
            url = (r'^url = "http.*"$', f'url = "http://{roles["node"].address}"')
            configure(made / "gateway.toml", [port0, url])
            roles["gateway"] = Role(binary, "gateway", made / "gateway.toml", folder / "gateway.log")
            bad = judge(roles, *drive(roles, seconds, pause), seconds)
        except OSError as error:
            bad.append(f"a role is gone: {error}")
        finally:
            for role in reversed(list(roles.values())):
                if role.stop() != 0:
                    bad.append(f"{role.role} did not end well")
                if "panicked" in role.log.read_text(encoding="utf-8"):
                    bad.append(f"{role.role} panicked")
    for flaw in bad:
        print(f"FAILED: {flaw}")
    sys.exit(1 if bad else 0)


main()
