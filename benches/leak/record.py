"""Records traces: asks gateways of each profile the same questions, and notes what an observer of either leg sees.

Gateways stand in groups, one of each profile, and each has a connection of its own to the node, so that an observer
need not tell streams apart. A group takes a question and asks it under each profile, one after the other in
random order: what else happens on the machine meets all profiles alike. Standard library only.
"""

import argparse
import asyncio
import dataclasses
import http.client
import json
import pathlib
import random
import re
import shutil
import ssl
import sys
import tempfile
import time

import topics
import wire
from stack import KEY, Stack, until

SETTINGS = {"natural": None, "equal": 40}
"""What is asked for: `max_tokens`, which every answer then reaches; None lets it end by itself."""
LEVELLED = ("bucket", "paced")
"""Profiles with `obfuscation` on the leg before the gateway, which has none of its own otherwise."""
REST_S = 0.03
"""How long a leg is watched after the caller has all."""
PATIENCE_S = 60
CONTENT = re.compile(rb'"content":\s*"[^"]')


@dataclasses.dataclass
class Lane:
    """A gateway with the relays before and behind it."""

    profile: str
    address: str
    client_leg: wire.Leg | None
    node_leg: wire.Leg


@dataclasses.dataclass(frozen=True)
class Question:
    """One thing to ask; the answer follows from it alone."""

    number: int
    setting: str
    prompt: topics.Prompt
    seed: int

    @property
    def max_tokens(self) -> int | None:
        return SETTINGS[self.setting]

    def steps(self) -> list[topics.Step]:
        return topics.answer(self.prompt.text, self.seed, self.max_tokens)

    def request(self) -> bytes:
        asked = {"model": "scripted", "stream": True, "seed": self.seed,
                 "messages": [{"role": "user", "content": self.prompt.text}]}
        if self.max_tokens:
            asked["max_tokens"] = self.max_tokens
        body = json.dumps(asked).encode()
        return (f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n").encode() + body


@dataclasses.dataclass
class Reply:
    """What the caller got, and when: milliseconds after the request was written."""

    first_ms: float
    last_ms: float
    """The last content."""
    end_ms: float
    """`[DONE]`."""
    text: str


def unchunked(raw: bytes) -> bytes:
    head, _, rest = raw.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(raw[:300].decode("latin-1"))
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if (length := int(size, 16)) == 0:
            return body
        body, rest = body + rest[:length], rest[length + 2:]
    raise ValueError("the reply was cut")


def said(body: bytes) -> str:
    """The text of an event stream that came to its end."""
    text, done = "", False
    for line in body.split(b"\n"):
        if line == b"data: [DONE]":
            done = True
        elif line.startswith(b"data: "):
            for choice in json.loads(line[6:]).get("choices", []):
                text += choice["delta"].get("content") or ""
    if not done:
        raise ValueError("no [DONE]")
    return text


async def ask(address: str, question: Question, tls: ssl.SSLContext | None) -> Reply:
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
    writer.write(question.request())
    begin, raw, first, last, end = time.monotonic(), b"", None, None, None
    while data := await reader.read(65536):
        now, fresh_from = time.monotonic(), max(0, len(raw) - len(b'"content": "'))
        raw += data
        if CONTENT.search(raw, fresh_from):
            first, last = first or now, now
        if end is None and raw.find(b"data: [DONE]", fresh_from) >= 0:
            end = now
    writer.close()
    text = said(unchunked(raw))
    if first is None or end is None:
        raise ValueError("a reply without content")
    return Reply((first - begin) * 1000, (last - begin) * 1000, (end - begin) * 1000, text)


def seen(units: list[wire.Unit]) -> list[list[int]]:
    """Units as [microseconds from the first, size, up negative; kind; stream]."""
    begin = units[0].at if units else 0.0
    return [[round((unit.at - begin) * 1e6), unit.size if unit.down else -unit.size, unit.kind, unit.stream]
            for unit in units]


async def trace(lane: Lane, question: Question, tls: ssl.SSLContext | None) -> dict:
    """Asks once; what both legs showed meanwhile, and how it went."""
    await asyncio.sleep(REST_S)
    lane.node_leg.take()
    if lane.client_leg:
        lane.client_leg.take()
    kept = {"profile": lane.profile, "setting": question.setting, "question": question.number,
            "topic": question.prompt.topic, "prompt": question.prompt.text}
    try:
        reply = await asyncio.wait_for(ask(lane.address, question, tls), PATIENCE_S)
    except (OSError, ValueError, TimeoutError) as error:
        return kept | {"flaw": repr(error)}
    await asyncio.sleep(REST_S)
    steps = question.steps()
    if reply.text != "".join(step.text for step in steps):
        return kept | {"flaw": "another text"}
    legs = {"node": seen(lane.node_leg.take())}
    if lane.client_leg:
        legs["client"] = seen(lane.client_leg.take())
    times = {key: round(getattr(reply, key), 2) for key in ("first_ms", "last_ms", "end_ms")}
    return kept | times | {"steps": len(steps), "tokens": sum(step.tokens for step in steps), "legs": legs}


async def open_lane(stack: Stack, name: str, profile: str) -> Lane:
    node_leg = wire.Leg(stack.node.host_and_port)
    gateway = await asyncio.to_thread(stack.gateway, name, profile, await node_leg.open(),
                                      profile in LEVELLED)
    if stack.certificate is None:
        lane = Lane(profile, gateway.address, None, node_leg)
    else:
        client_leg = wire.Leg(gateway.host_and_port)
        lane = Lane(profile, await client_leg.open(), client_leg, node_leg)

    def ready() -> bool:
        context = ssl.create_default_context(cafile=stack.certificate) if stack.certificate else None
        connection = (http.client.HTTPSConnection(gateway.address, timeout=10, context=context) if context
                      else http.client.HTTPConnection(gateway.address, timeout=10))
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
        return status == 200

    await asyncio.to_thread(until, ready, f"{name} ready")
    return lane


def questions(per_class: int, repeats: int, settings: list[str], seed: int) -> list[Question]:
    found = []
    for setting in settings:
        for prompt in topics.prompts(per_class, seed):
            for repeat in range(repeats):
                found.append(Question(len(found), setting, prompt, 100_000 + 1000 * seed + repeat))
    random.Random(seed).shuffle(found)
    return found


async def record(arguments: argparse.Namespace, stack: Stack, out) -> int:
    """Writes a trace a line; returns how many failed."""
    tls = ssl.create_default_context(cafile=stack.certificate) if stack.certificate else None
    waiting = questions(arguments.prompts, arguments.repeats, arguments.settings, arguments.seed)
    total, begin, flaws, chance = len(waiting), time.monotonic(), 0, random.Random(arguments.seed)
    groups = [[await open_lane(stack, f"{profile}-{number}", profile) for profile in arguments.profiles]
              for number in range(arguments.groups)]

    async def work(group: list[Lane]) -> None:
        nonlocal flaws
        for lane in group:
            # The first request on a connection has heads that later ones refer to.
            await trace(lane, Question(-1, "equal", topics.Prompt(topics.TARGET, "Which rash?"), 1), tls)
        while waiting:
            question = waiting.pop()
            for lane in chance.sample(group, len(group)):
                found = await trace(lane, question, tls)
                if "flaw" in found:
                    flaws += 1
                    print(f"{found['profile']}, question {question.number}: {found['flaw']}", file=sys.stderr)
                out.write(json.dumps(found, separators=(",", ":")) + "\n")
            done = total - len(waiting)
            if done % 50 == 0:
                print(f"{done} of {total} questions, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)

    await asyncio.gather(*(work(group) for group in groups))
    return flaws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("out", type=pathlib.Path, help="traces, one JSON object a line")
    parser.add_argument("--profiles", type=lambda text: text.split(","), default=["off", "bucket", "paced"])
    parser.add_argument("--settings", type=lambda text: text.split(","), default=list(SETTINGS))
    parser.add_argument("--prompts", type=int, default=120, help="of the target, and as many of the other topics")
    parser.add_argument("--repeats", type=int, default=2, help="answers to each prompt")
    parser.add_argument("--groups", type=int, default=8, help="questions asked at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--node-tls", action="store_true", help="TLS between gateway and node as well")
    parser.add_argument("--no-client-tls", action="store_true", help="leaves out the leg before the gateway")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, arguments.out.open("w", encoding="utf-8") as out:
        with Stack(arguments.binary, pathlib.Path(folder), arguments.node_tls) as stack:
            stack.begin()
            if not arguments.no_client_tls:
                if shutil.which("openssl") is None:
                    sys.exit("openssl makes the certificate of the leg before the gateway: install it, or --no-client-tls")
                stack.make_certificate()
            flaws = asyncio.run(record(arguments, stack, out))
    if flaws:
        sys.exit(f"{flaws} traces failed")


if __name__ == "__main__":
    main()
