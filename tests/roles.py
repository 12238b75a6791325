"""Gateways and nodes as processes, for the tests that are scripts. Standard library only."""

import atexit
import collections
import http.client
import json
import pathlib
import re
import signal
import subprocess
import sys

PATIENCE_S = 60


class Role:
    """One process, its addresses taken from its ready lines: its own, and that of `[admin]` where it has one."""

    def __init__(self, binary, role, config, log):
        self.arguments = [binary, role, "--config", str(config)]
        self.role, self.log = role, pathlib.Path(log)
        self.has_admin = "\n[admin]" in pathlib.Path(config).read_text(encoding="utf-8")
        # Nothing outlives a test that failed.
        atexit.register(self.kill)
        self.start()

    def start(self):
        with self.log.open("a", encoding="utf-8") as log:
            # pylint: disable=consider-using-with
            self.process = subprocess.Popen(self.arguments, stdout=subprocess.PIPE, stderr=log, text=True)
        self.address = self.listening()
        self.admin = self.listening() if self.has_admin else None

    def listening(self):
        line = self.process.stdout.readline()
        found = re.search(r"listening on http://(\S+)", line)
        if not found:
            sys.exit(f"{self.role} did not start: {line!r}, see {self.log}:\n"
                     + self.log.read_text(encoding="utf-8")[-2000:])
        return found[1]

    def metrics(self):
        """The sum of each metric over its labels."""
        sums = collections.Counter()
        for line in get(self.admin, "/metrics")[1].splitlines():
            if not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                sums[series.split("{")[0]] += float(value)
        return sums

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self):
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def reload(self):
        self.process.send_signal(signal.SIGHUP)


def demo_files(binary, folder, key):
    """The files of a demo, which is started for them and ended."""
    # pylint: disable=consider-using-with
    demo = subprocess.Popen([binary, "demo", "--listen", "127.0.0.1:0", "--api-key", key, "--dir",
                             str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in demo.stdout:
        if line.startswith("api key"):
            break
    demo.terminate()
    demo.wait(PATIENCE_S)


def changed(text, changes):
    """A configuration with each pattern, which must be there, replaced."""
    for pattern, value in changes:
        text, count = re.subn(pattern, value, text, flags=re.MULTILINE)
        if not count:
            sys.exit(f"no {pattern} in {text}")
    return text


def make_key(binary, config, name, *terms):
    """A new key of the gateway's store."""
    made = subprocess.run([binary, "keys", "create", "--config", str(config), "--name", name, "--json",
                           *terms], check=True, capture_output=True, text=True)
    return json.loads(made.stdout)["key"]


def usage(binary, config, by):
    """The store's report."""
    done = subprocess.run([binary, "usage", "--config", str(config), "--by", by, "--json"], check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout)["usage"]


def get(address, path, key=None):
    """Status and text of what a path answers."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {key}"} if key else {})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


class Reply:
    """What came of a request, as its caller sees it."""

    def __init__(self, status, request_id=None, usage_told=None, content="", headers=None):
        self.status, self.request_id, self.usage = status, request_id, usage_told
        self.content, self.headers = content, headers or {}

    @property
    def is_whole(self):
        return self.status == 200

    @property
    def name(self):
        return "whole" if self.is_whole else str(self.status)


BROKEN = Reply("broken")


def complete(address, key, prompt, stream=False, **more):
    """Asks for a completion and reads it to its end."""
    body = {"model": "echo", "prompt": prompt, "stream": stream, "max_tokens": 4096, **more}
    if stream:
        body["stream_options"] = {"include_usage": True}
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body),
                           {"authorization": f"Bearer {key}", "content-type": "application/json"})
        reply = connection.getresponse()
        content = reply.read().decode()
    except (OSError, http.client.HTTPException):
        return BROKEN
    finally:
        connection.close()
    request_id, headers = reply.getheader("x-request-id"), reply.headers
    if reply.status != 200:
        return Reply(reply.status, request_id, None, content, headers)
    if not stream:
        return Reply(200, request_id, json.loads(content)["usage"], content, headers)
    if not content.rstrip().endswith("data: [DONE]"):
        return BROKEN
    events = [json.loads(line[6:]) for line in content.splitlines() if line.startswith("data: {")]
    told = [event["usage"] for event in events if event.get("usage")]
    return Reply(200, request_id, told[-1], content, headers)
