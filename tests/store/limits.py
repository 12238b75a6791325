"""Three gateways over one PostgreSQL behind HAProxy: limits hold for all of them together.

What one lets in the others know after two intervals. So limits are tried in two ways: a step at a time, where
each gateway has heard of the step before, and there they must hold exactly; and as fast as it goes, where they may
be overrun by what was let in meanwhile, and by no more. Standard library only.
"""

import collections
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
# pylint: disable=wrong-import-position
from engine import COMPLETION_TOKENS, TOKENS, Engine
from roles import PATIENCE_S, Role, complete, get, make_key, usage
from postgres import fleet, psql

GATEWAYS, WORKERS = 3, 9
# What is let in meanwhile is let in within two intervals, 0.4 s here; machines that do much else take longer.
MEANWHILE_S = 1.5


class Balancer:
    """HAProxy, on a port of the kernel's choice: it is handed the socket."""

    def __init__(self, gateways, folder):
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        servers = "\n".join(f"  server g{n} {it.address} check inter 200" for n, it in enumerate(gateways))
        config = folder / "haproxy.cfg"
        config.write_text(f"""
defaults
  mode http
  timeout connect 5s
  timeout client {PATIENCE_S}s
  timeout server {PATIENCE_S}s
  option redispatch
frontend callers
  bind fd@{listener.fileno()}
  default_backend gateways
backend gateways
  balance roundrobin
{servers}
""", encoding="utf-8")
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(["haproxy", "-db", "-q", "-f", str(config)],
                                        pass_fds=[listener.fileno()])

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)


class Fleet:
    """What a caller and an operator see of it."""

    def __init__(self, binary, folder):
        self.binary, self.engine = binary, Engine()
        self.database, self.node, self.configs = fleet(
            binary, folder, GATEWAYS, more='\n[admin]\nlisten = "127.0.0.1:0"\n', engine=self.engine.url)
        # A gateway tells of keys that were used there in the last minutes: so each has something to tell.
        self.used = self.make_key("used", "--requests-per-minute", "1000")
        self.gateways = [Role(binary, "gateway", it, it.with_suffix(".log")) for it in self.configs]
        self.balancer = Balancer(self.gateways, folder)

    def make_key(self, name, *terms):
        return make_key(self.binary, self.configs[0], name, *terms)

    def complete(self, key, prompt="a"):
        return complete(self.balancer.address, key, prompt, max_tokens=COMPLETION_TOKENS)

    def use(self):
        """Has each gateway tell for a minute at least."""
        statuses = [complete(it.address, self.used, "a").status for it in self.gateways]
        if statuses != [200] * GATEWAYS:
            sys.exit(f"the key that every gateway uses: {statuses}")

    def heard(self):
        """Waits until each gateway has told and heard again, after all had told what they do now."""
        beats = self.beats()
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            now = self.beats()
            if len(now) == GATEWAYS and all(now[it] >= beats.get(it, 0) + 3 for it in now):
                return
            time.sleep(0.02)
        sys.exit(f"gateways do not share: {beats}, {self.beats()}")

    def beats(self):
        rows = psql(self.database, "SELECT gateway_id, max(beat) FROM share GROUP BY gateway_id")
        return {gateway: int(beat) for gateway, beat in rows}

    def settled(self, key_name, count):
        """Waits until so many of a key's rows are in the database."""
        until = time.monotonic() + PATIENCE_S
        while self.rows(key_name) != count:
            if time.monotonic() > until:
                sys.exit(f"{key_name}: {self.rows(key_name)} rows, not {count}")
            time.sleep(0.02)

    def rows(self, key_name):
        return int(psql(self.database, "SELECT count(*) FROM usage_row JOIN api_key ON key_id = id "
                                       f"WHERE name = '{key_name}'")[0][0])

    def stop(self):
        self.engine.let_go()
        self.balancer.stop()
        flaws = [f"{it.log}: did not end well" for it in [*self.gateways, self.node] if it.stop() != 0]
        self.database.drop()
        return flaws


def step_by_step(held, name, terms, allowed, refusal):
    """One request after the other, each known everywhere: so many, and not one more at any gateway."""
    key, begun = held.make_key(name, *terms), time.monotonic()
    held.use()
    statuses = collections.Counter()
    for number in range(allowed + 2 * GATEWAYS):
        reply = held.complete(key)
        statuses[reply.status] += 1
        held.settled(name, statuses[200])
        held.heard()
        if number + 1 == allowed and statuses[200] != allowed:
            return f"{name}: {dict(statuses)} of the first {allowed}"
    # Of a minute's limit something comes back with the time.
    back = allowed * (time.monotonic() - begun) / 60 + 1 if refusal == 429 else 0
    print(f"{name}, step by step: {dict(statuses)}, {allowed} allowed")
    if set(statuses) - {200, refusal} or not statuses[refusal] or statuses[200] > allowed + back:
        return f"{name}: {dict(statuses)}, {allowed} allowed"
    return None


def at_speed(held, name, terms, allowed, refusal):
    """As fast as it goes, until nothing was let in for many requests."""
    key, begun, let_in = held.make_key(name, *terms), time.monotonic(), []
    held.use()
    statuses, lock, refused = collections.Counter(), threading.Lock(), []

    def work():
        while len(refused) < 2 * allowed:
            reply = held.complete(key)
            with lock:
                statuses[reply.status] += 1
                if reply.status == 200:
                    let_in.append(time.monotonic())
                    refused.clear()
                else:
                    refused.append(reply.status)

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    held.settled(name, statuses[200])
    held.heard()
    after = collections.Counter(held.complete(key).status for _ in range(2 * GATEWAYS))
    took = time.monotonic() - begun
    meanwhile = max(sum(at <= it < at + MEANWHILE_S for it in let_in) for at in let_in)
    back = allowed * took / 60 + 1 if refusal == 429 else 0
    most = allowed + meanwhile * (GATEWAYS - 1) / GATEWAYS + back
    print(f"{name}, at speed: {dict(statuses)} in {took:.1f} s, {allowed} allowed, {most:.0f} with what is let in "
          f"meanwhile; then {dict(after)}")
    if set(statuses) - {200, refusal} or not allowed <= statuses[200] <= most:
        return f"{name}: {dict(statuses)}, {allowed} to {most:.0f} allowed"
    if refusal == 402 and set(after) != {402}:
        return f"{name}: {dict(after)} after the budget was spent"
    return None


def at_once(held):
    """Requests that are held by the engine: so many at once, wherever they are."""
    allowed, name = 4, "at-once"
    key = held.make_key(name, "--in-flight", str(allowed))
    held.use()
    replies, threads = [], []
    for number in range(allowed):
        threads.append(threading.Thread(target=lambda: replies.append(held.complete(key, "hold"))))
        threads[-1].start()
        with held.engine.changed:
            if not held.engine.changed.wait_for(lambda: held.engine.held > number, PATIENCE_S):
                return f"{name}: request {number} does not come to the engine"
        held.heard()
    beyond = [held.complete(key, "hold") for _ in range(2 * GATEWAYS)]
    held.engine.let_go()
    for thread in threads:
        thread.join()
    held.heard()
    again = held.complete(key)
    statuses = [reply.status for reply in replies], [reply.status for reply in beyond], again.status
    print(f"{name}: {statuses}")
    is_good = statuses == ([200] * allowed, [429] * len(beyond), 200)
    return None if is_good else f"{name}: {statuses}"


def revoked(held):
    """A key that is revoked ends everywhere."""
    key = held.make_key("revoked")
    before = {get(it.address, "/v1/models", key)[0] for it in held.gateways}
    subprocess.run([held.binary, "keys", "revoke", "--config", str(held.configs[0]), "revoked"], check=True,
                   capture_output=True)
    begun = time.monotonic()
    while any(get(it.address, "/v1/models", key)[0] != 401 for it in held.gateways):
        if time.monotonic() > begun + PATIENCE_S:
            return "revoked: the key goes on"
        time.sleep(0.02)
    print(f"revoked: 401 at all gateways after {time.monotonic() - begun:.2f} s")
    return None if before == {200} else f"revoked: {before} before"


def agree(held):
    """All took part, and what the reports, the rows and the sums of spending say is one thing."""
    flaws = []
    asked = [it.metrics()["sealgate_gateway_requests_total"] for it in held.gateways]
    if min(asked) * GATEWAYS * 2 < sum(asked):
        flaws.append(f"requests by gateway: {asked}")
    wrong = psql(held.database, """
        SELECT spend.key_id, period, sum(spend.tokens), max(charged) FROM spend JOIN (
          SELECT key_id, sum(coalesce(prompt_tokens + completion_tokens, charged_tokens, 0)) AS charged
          FROM usage_row GROUP BY key_id) AS sums ON sums.key_id = spend.key_id
        GROUP BY spend.key_id, period HAVING sum(spend.tokens) <> max(charged)""")
    flaws += [f"spent and charged differ: {row}" for row in wrong]
    rows = int(psql(held.database, "SELECT count(*) FROM usage_row")[0][0])
    report = sum(row["requests"] for row in usage(held.binary, held.configs[0], "key"))
    print(f"requests by gateway: {asked}; {rows} rows, {report} reported")
    if rows != report:
        flaws.append(f"{rows} rows, {report} in the report")
    return "; ".join(flaws) or None


def main():
    with tempfile.TemporaryDirectory() as name:
        held = Fleet(sys.argv[1], pathlib.Path(name))
        flaws = [
            step_by_step(held, "requests", ["--requests-per-minute", "6"], 6, 429),
            step_by_step(held, "tokens", ["--tokens-per-minute", str(tokens_for(6))], 6, 429),
            step_by_step(held, "budget", ["--budget-tokens", f"ever={tokens_for(6)}"], 6, 402),
            at_speed(held, "many-requests", ["--requests-per-minute", "90"], 90, 429),
            at_speed(held, "many-tokens", ["--budget-tokens", f"day={tokens_for(60)}"], 60, 402),
            at_once(held),
            revoked(held),
            agree(held),
            *held.stop(),
        ]
    flaws = [flaw for flaw in flaws if flaw]
    for flaw in flaws:
        print(f"FAILED: {flaw}")
    sys.exit(1 if flaws else 0)


def tokens_for(requests):
    """What so many need: the last one holds a token for each four bytes of its body, and what it may be answered with."""
    body = {"model": "echo", "prompt": "a", "stream": False, "max_tokens": COMPLETION_TOKENS}
    return (requests - 1) * TOKENS - (-len(json.dumps(body)) // 4) + COMPLETION_TOKENS


main()
