"""What every test needs: the SDK pointed at the gateway, and the engine behind it to compare with.

`run.sh` sets `BASE_URL` and `API_KEY` (the gateway), `ENGINE_URL` and `ENGINE_LOG` (the engine) and `CANARY`, a
text that goes into prompts and may stand in no log.
"""

import json
import os
import time
import urllib.request
from pathlib import Path

import openai
import pytest

WORDS = (Path(__file__).parents[2] / "engine" / "words.txt").read_text(encoding="utf-8").split()
# Requests are made once: a test must see the first answer, not a later and luckier one.
NO_RETRIES = 0
# After a caller left, the engine's work stops within this many seconds.
STOPS_WITHIN = 1.0
# While it works on a unary answer, this engine itself looks once in so many seconds whether somebody still waits.
ENGINE_LOOKS_EVERY = 1.0


class Engine:
    """The engine without the gateway."""

    def __init__(self, url, log):
        self.url = url
        self.log = log

    def _call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers)) as reply:
            return json.load(reply)

    def text(self, prompt, max_tokens=16, **members):
        """The text that the engine itself answers with greedy decoding."""
        body = {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **members}
        return self._call("/v1/completions", body)["choices"][0]["text"]

    def tokens(self, prompt):
        """The prompt as the engine counts it, the first token being the mark of the beginning."""
        return self._call("/tokenize", {"content": prompt, "add_special": True})["tokens"]

    def busy(self):
        return any(slot["is_processing"] for slot in self._call("/slots"))

    def cancelled(self):
        """How many requests it gave up so far, from its log: asking it would put off its look at who waits."""
        return self.log.read_text(encoding="utf-8", errors="replace").count("cancel task")


def within(seconds, true):
    """Whether `true()` holds within so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="session")
def engine():
    return Engine(os.environ["ENGINE_URL"], Path(os.environ["ENGINE_LOG"]))


@pytest.fixture(scope="session")
def settings():
    return {"base_url": os.environ["BASE_URL"], "api_key": os.environ["API_KEY"], "max_retries": NO_RETRIES}


@pytest.fixture
def client(settings):
    with openai.OpenAI(**settings) as client:
        yield client


@pytest.fixture(scope="session")
def canary():
    return os.environ["CANARY"]


@pytest.fixture
def complete(client):
    """A greedy completion of `tiny`; keyword arguments are the SDK's."""

    def complete(prompt, **members):
        return client.completions.create(model="tiny", prompt=prompt, temperature=0, **members)

    return complete


@pytest.fixture
def quiet(engine):
    """Begins the test with an idle engine."""
    assert within(30, lambda: not engine.busy()), "the engine is still busy with an earlier test"
