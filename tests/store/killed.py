"""Kills gateways and their database under load, and then holds usage against what callers got.

Two gateways share a PostgreSQL. Callers ask them for whole replies and streams; at random a gateway, or the
database, is killed (SIGKILL) and started again. In the end every reply that a caller got whole must have one
row with the same tokens, no request may have two, and the sums of the rows must be those of the keys' report.
Standard library only.
"""

import collections
import http.client
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

KEY = "sk-kill-0123456789abcdef0123456789abcdef"
WORKERS = 8
PATIENCE_S = 60


class Role:
    """One process, its address taken from its ready line."""

    def __init__(self, binary, role, config, log):
        self.arguments = [binary, role, "--config", str(config)]
        self.log = log
        self.start()

    def start(self):
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(self.arguments, stdout=subprocess.PIPE,
                                        stderr=open(self.log, "a", encoding="utf-8"), text=True)
        line = self.process.stdout.readline()
        found = re.search(r"listening on http://(\S+)", line)
        if not found:
            sys.exit(f"{self.arguments[1]} did not start: {line!r}, see {self.log}:\n"
                     + pathlib.Path(self.log).read_text(encoding="utf-8")[-2000:])
        self.address = found[1]

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE_S)


def demo_files(binary, folder):
    demo = subprocess.Popen([binary, "demo", "--listen", "127.0.0.1:0", "--api-key", KEY, "--dir",
                             str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in demo.stdout:
        if line.startswith("api key"):
            break
    demo.terminate()
    demo.wait(PATIENCE_S)


class Callers:
    """What was asked, and what came whole."""

    def __init__(self, roles):
        self.roles, self.lock = roles, threading.Lock()
        self.whole, self.broken, self.over = {}, collections.Counter(), threading.Event()

    def ask(self):
        address = random.choice(self.roles).address
        stream = random.random() < 0.5
        words = " ".join("word" for _ in range(random.randint(1, 60)))
        body = json.dumps({"model": "echo", "prompt": words, "stream": stream, "max_tokens": 4096,
                           "stream_options": {"include_usage": True}} if stream else
                          {"model": "echo", "prompt": words, "max_tokens": 4096})
        connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
        try:
            connection.request("POST", "/v1/completions", body,
                               {"authorization": f"Bearer {KEY}", "content-type": "application/json"})
            reply = connection.getresponse()
            request_id = reply.getheader("x-request-id")
            content = reply.read().decode()
        except (OSError, http.client.HTTPException):
            return "broken", None, None
        finally:
            connection.close()
        if reply.status != 200:
            return f"status {reply.status}", None, None
        if not stream:
            return "whole", request_id, json.loads(content)["usage"]
        if not content.rstrip().endswith("data: [DONE]"):
            return "broken", None, None
        events = [json.loads(line[6:]) for line in content.splitlines()
                  if line.startswith("data: {")]
        usage = [event["usage"] for event in events if event.get("usage")]
        return "whole", request_id, usage[-1]

    def work(self):
        while not self.over.is_set():
            outcome, request_id, usage = self.ask()
            with self.lock:
                self.broken[outcome] += 1
                if request_id:
                    self.whole[request_id] = (usage["prompt_tokens"], usage["completion_tokens"])
            if outcome != "whole":
                time.sleep(0.02)


def main():
    binary, seconds, url, pid_file, start = sys.argv[1:6]
    schema = f"killed_{os.getpid()}"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "demo"
        demo_files(binary, folder)
        node = Role(binary, "node", folder / "node.toml", folder / "node.log")
        psql(url, f"CREATE SCHEMA {schema}")
        text = (folder / "gateway.toml").read_text(encoding="utf-8")
        text = re.sub(r'(?m)^listen = .*$', 'listen = "127.0.0.1:0"', text)
        text = re.sub(r'(?m)^url = "http://.*$', f'url = "http://{node.address}"', text)
        text = text.replace(
            'url = "sqlite:sealgate.db"',
            f'url = "{url}?options[search_path]={schema}"\nsecret_file = "sealgate.secret"\n'
            'journal = "JOURNAL"\npoll_ms = 200')
        gateways = []
        for number in range(2):
            config = folder / f"gateway-{number}.toml"
            config.write_text(text.replace("JOURNAL", f"journal-{number}"), encoding="utf-8")
            if number == 0:
                make_key(binary, config)
            gateways.append(Role(binary, "gateway", config, folder / f"gateway-{number}.log"))
        ok = drive(gateways, float(seconds), pid_file, start,
                   lambda callers: judge(callers, url, schema, binary, folder / "gateway-0.toml"))
        node.stop()
        psql(url, f"DROP SCHEMA {schema} CASCADE")
    sys.exit(0 if ok else 1)


def make_key(binary, config):
    """A key for the callers."""
    made = subprocess.run([binary, "keys", "create", "--config", str(config), "--name", "callers",
                           "--json"], check=True, capture_output=True, text=True)
    global KEY  # pylint: disable=global-statement
    KEY = json.loads(made.stdout)["key"]


def drive(gateways, seconds, pid_file, start, judged):
    callers = Callers(gateways)
    threads = [threading.Thread(target=callers.work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    kills, until = collections.Counter(), time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(random.uniform(0.5, 2.5))
        if random.random() < 0.5:
            victim = random.choice(gateways)
            victim.kill()
            victim.start()
            kills["gateway"] += 1
        else:
            # The first line of the file is the server's process.
            os.kill(int(pathlib.Path(pid_file).read_text(encoding="utf-8").split()[0]), signal.SIGKILL)
            time.sleep(random.uniform(0, 1))
            restart(start)
            kills["database"] += 1
    callers.over.set()
    for thread in threads:
        thread.join()
    for gateway in gateways:
        gateway.stop()
    print(f"kills: {dict(kills)}; requests: {dict(callers.broken)}")
    return judged(callers) and callers.broken["whole"] > 50 and len(kills) == 2


def restart(start):
    """Starts the database again; processes of the one that was killed may hold it for a moment."""
    for _ in range(100):
        if subprocess.run([start], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    sys.exit("the database does not start again")


def psql(url, statement):
    done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-F", "|", "-c", statement, url],
                          check=True, capture_output=True, text=True)
    return [line.split("|") for line in done.stdout.splitlines() if line]


def judge(callers, url, schema, binary, config):
    rows = psql(url, "SELECT request_id, outcome, prompt_tokens, completion_tokens "
                     f"FROM {schema}.usage_row")
    by_id = {row[0]: row[1:] for row in rows}
    wrong = []
    for request_id, (prompt, completion) in callers.whole.items():
        row = by_id.get(request_id)
        if row is None:
            wrong.append(f"{request_id}: a whole reply without a row")
        elif row[1:] != [str(prompt), str(completion)]:
            wrong.append(f"{request_id}: {row} where the caller got {prompt} and {completion}")
    report = subprocess.run([binary, "usage", "--config", str(config), "--by", "key", "--json"],
                            check=True, capture_output=True, text=True)
    sums = json.loads(report.stdout)["usage"][0]
    counted = [row for row in by_id.values() if row[2]]
    expected = (len(rows), sum(int(row[1]) for row in counted), sum(int(row[2]) for row in counted))
    told = (sums["requests"], sums["prompt_tokens"], sums["completion_tokens"])
    if told != expected:
        wrong.append(f"the report says {told}, the rows {expected}")
    outcomes = collections.Counter(row[0] for row in by_id.values())
    print(f"{len(callers.whole)} whole replies, {len(rows)} rows {dict(outcomes)}, {len(wrong)} wrong")
    for line in wrong[:20]:
        print(line)
    return not wrong


if __name__ == "__main__":
    main()
