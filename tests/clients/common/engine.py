"""The engine without the gateway: what it says itself is what every client must get."""

import json
import time
import urllib.request
from pathlib import Path

WORDS = (Path(__file__).parents[2] / "engine" / "words.txt").read_text(encoding="utf-8").split()
# After a caller left, the engine's work stops within this many seconds.
STOPS_WITHIN = 1.0
# While it works on a unary answer, this engine itself looks once in so many seconds whether somebody still waits.
ENGINE_LOOKS_EVERY = 1.0


def call(url, body=None):
    """The JSON that an engine answers."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as reply:
        return json.load(reply)


class Engine:
    """The engine without the gateway."""

    def __init__(self, url, log):
        self.url = url
        self.log = log

    def _call(self, path, body=None):
        return call(self.url + path, body)

    def text(self, prompt, max_tokens=16, **members):
        """The text that the engine itself answers with greedy decoding."""
        body = {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **members}
        return self._call("/v1/completions", body)["choices"][0]["text"]

    def tokens(self, prompt):
        """The prompt as the engine counts it, the first token being the mark of the beginning."""
        return self._call("/tokenize", {"content": prompt, "add_special": True})["tokens"]

    def chat(self, messages, max_tokens=16, **members):
        """The first choice of the engine's own greedy answer in a conversation; a string is one user's message."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body = {"model": "tiny", "messages": messages, "max_tokens": max_tokens, "temperature": 0, **members}
        return self._call("/v1/chat/completions", body)["choices"][0]

    def reply(self, messages, max_tokens=16):
        """The text of it."""
        return self.chat(messages, max_tokens)["message"]["content"]

    def vectors(self, input):
        """The engine's own embeddings."""
        return [item["embedding"] for item in self._call("/v1/embeddings", {"model": "tiny", "input": input})["data"]]

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
