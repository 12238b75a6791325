"""Kills gateways and their database under load, and then holds usage against what nodes signed.

Two gateways share a PostgreSQL, and demand a receipt of each reply. Callers ask them for whole replies and
streams; at random a gateway, or the database, is killed (SIGKILL) and started again. In the end

- every reply that a caller got whole has one row, and one receipt, with the tokens that he got;
- what a node signed and its row say the same of each request, and so do their sums;
- what the key has spent is the sum of what its rows charge, and so is the report.

Standard library only.
"""

import base64
import collections
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
# pylint: disable=wrong-import-position
from roles import Role, complete, make_key, usage
from postgres import psql, restart, fleet

WORKERS = 8
# Fewer are no load to kill anything under.
FEWEST_WHOLE = 50


class Callers:
    """What was asked, and what came whole."""

    def __init__(self, gateways, key):
        self.gateways, self.key, self.lock = gateways, key, threading.Lock()
        self.whole, self.outcomes, self.over = {}, collections.Counter(), threading.Event()

    def work(self):
        while not self.over.is_set():
            words = " ".join("word" for _ in range(random.randint(1, 60)))
            gateway = random.choice(self.gateways)
            reply = complete(gateway.address, self.key, words, stream=random.random() < 0.5)
            with self.lock:
                self.outcomes[reply.name] += 1
                if reply.is_whole:
                    self.whole[reply.request_id] = tokens(reply.usage)
            if not reply.is_whole:
                time.sleep(0.02)


def tokens(told):
    return told["prompt_tokens"], told["completion_tokens"]


def drive(gateways, key, seconds, database):
    callers = Callers(gateways, key)
    threads = [threading.Thread(target=callers.work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    kills, until = collections.Counter(), time.monotonic() + seconds
    while time.monotonic() < until or len(kills) < 2:
        time.sleep(random.uniform(0.5, 2.5))
        if random.random() < 0.5:
            victim = random.choice(gateways)
            victim.kill()
            victim.start()
            kills["gateway"] += 1
        else:
            # The first line of the file is the server's process.
            os.kill(int(database.pid_file.read_text(encoding="utf-8").split()[0]), signal.SIGKILL)
            time.sleep(random.uniform(0, 1))
            restart(database)
            kills["database"] += 1
    callers.over.set()
    for thread in threads:
        thread.join()
    # One after the other: what one found in its journal is in the store when it has stopped.
    for gateway in gateways:
        if gateway.stop() != 0:
            sys.exit(f"a gateway did not end well: {gateway.log.read_text(encoding='utf-8')[-2000:]}")
    print(f"kills: {dict(kills)}; requests: {dict(callers.outcomes)}")
    return callers


def signed(jws):
    """What a receipt says of usage; the gateway has checked its signature."""
    payload = jws.split(".")[1]
    receipt = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return receipt["request_id"], receipt["usage"]


def judge(callers, database, report):
    rows = {row[0]: row[1:] for row in psql(database, """
        SELECT request_id, outcome, prompt_tokens, completion_tokens,
        coalesce(prompt_tokens + completion_tokens, charged_tokens, 0) FROM usage_row""")}
    receipts = dict(signed(row[0]) for row in psql(database, "SELECT jws FROM receipt"))
    wrong = []
    for request_id, told in callers.whole.items():
        row, receipt = rows.get(request_id), receipts.get(request_id)
        if row is None or row[0] != "complete" or row[1:3] != [str(count) for count in told]:
            wrong.append(f"{request_id}: the caller got {told} whole, its row is {row}")
        if receipt is None or tokens(receipt) != told:
            wrong.append(f"{request_id}: the caller got {told} whole, its node signed {receipt}")
    both = [request_id for request_id in receipts if rows.get(request_id, [""])[0] == "complete"]
    for request_id in receipts:
        row = rows.get(request_id)
        if row is None:
            wrong.append(f"{request_id}: a receipt without a row")
        elif row[1] and row[1:3] != [str(count) for count in tokens(receipts[request_id])]:
            wrong.append(f"{request_id}: its row is {row}, its node signed {receipts[request_id]}")
    unsigned = [request_id for request_id, row in rows.items()
                if row[0] == "complete" and request_id not in receipts]
    wrong += [f"{request_id}: complete, and without a receipt" for request_id in unsigned]
    sums = [tuple(sum(int(rows[request_id][column]) for request_id in both) for column in (1, 2)),
            tuple(map(sum, zip(*(tokens(receipts[request_id]) for request_id in both))))]
    if sums[0] != sums[1]:
        wrong.append(f"rows add up to {sums[0]}, what nodes signed to {sums[1]}")
    counted = [row for row in rows.values() if row[1]]
    expected = (len(rows), *(sum(int(row[column]) for row in counted) for column in (1, 2)))
    told = tuple(report[name] for name in ("requests", "prompt_tokens", "completion_tokens"))
    if told != expected:
        wrong.append(f"the report says {told}, the rows {expected}")
    charged = sum(int(row[3]) for row in rows.values())
    for period, spent in psql(database, "SELECT period, sum(tokens) FROM spend GROUP BY period"):
        if int(spent) != charged:
            wrong.append(f"{spent} tokens are spent {period}, the rows charge {charged}")
    outcomes = collections.Counter(row[0] for row in rows.values())
    print(f"{len(callers.whole)} whole replies, {len(rows)} rows {dict(outcomes)}, {len(receipts)} receipts; "
          f"prompt and completion tokens by rows {sums[0]}, as signed {sums[1]}; {charged} charged; "
          f"{len(wrong)} wrong")
    for line in wrong[:20]:
        print(line)
    return not wrong


def main():
    binary, seconds = sys.argv[1], float(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        database, node, configs = fleet(binary, pathlib.Path(name), 2)
        key = make_key(binary, configs[0], "callers", "--receipts", "required",
                       "--budget-tokens", "ever=1000000000")
        gateways = [Role(binary, "gateway", config, config.with_suffix(".log")) for config in configs]
        callers = drive(gateways, key, seconds, database)
        report = usage(binary, configs[0], "key")[0]
        ok = judge(callers, database, report) and len(callers.whole) >= FEWEST_WHOLE
        node.stop()
        database.drop()
    sys.exit(0 if ok else 1)


main()
