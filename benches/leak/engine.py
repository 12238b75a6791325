"""The study's engine: an OpenAI-compatible server that says what `topics.answer` plans, when it plans it.

Like an engine that decodes speculatively, it sends one event for each step. Prints one line,
`engine listening on http://127.0.0.1:PORT`, and ends on SIGTERM. Standard library only.
"""

import asyncio
import functools
import itertools
import json
import signal

import topics

MODEL = "scripted"
STEADY_FROM = 1000
"""From so many `max_tokens` on, an answer is a word at each STEADY_S: what streams cost is measured with that."""
STEADY_S = 0.04


def event(delta: dict, finish: str | None = None) -> dict:
    return {"id": "chatcmpl-0123456789abcdef0123456789abcdef", "object": "chat.completion.chunk", "created": 1700000000,
            "model": MODEL, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def line(value: dict) -> bytes:
    return chunk(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")


@functools.lru_cache(4096)
def said(text: str) -> bytes:
    return line(event({"content": text}))


async def say(asked: dict, writer: asyncio.StreamWriter) -> None:
    """Streams an answer. Each piece has its time from the begin, so that delays do not add up."""
    text, max_tokens = asked["messages"][-1]["content"], asked.get("max_tokens")
    if max_tokens and max_tokens >= STEADY_FROM:
        steps = itertools.repeat(topics.Step(STEADY_S, " word", 1), max_tokens)
    else:
        steps = topics.answer(text, asked["seed"], max_tokens)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    writer.write(line(event({"role": "assistant", "content": ""})))
    clock = asyncio.get_running_loop().time
    due, tokens = clock(), 0
    for step in steps:
        due, tokens = due + step.after_s, tokens + step.tokens
        await asyncio.sleep(max(0.0, due - clock()))
        writer.write(said(step.text))
        await writer.drain()
    writer.write(line(event({}, "length" if max_tokens else "stop")))
    usage = {"prompt_tokens": len(text.split()), "completion_tokens": tokens, "total_tokens": len(text.split()) + tokens}
    writer.write(line(event({}) | {"choices": [], "usage": usage}))
    writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


def whole(status: str, value: dict) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status.encode(), len(body), body)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = dict(field.lower().split(": ", 1) for field in head[1:] if field)
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            if head[0].startswith("GET /v1/models "):
                listed = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1700000000, "owned_by": "x"}]}
                writer.write(whole("200 OK", listed))
            elif head[0].startswith("POST /v1/chat/completions "):
                await say(json.loads(body), writer)
            else:
                writer.write(whole("404 Not Found", {"error": {"message": "not here"}}))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(f"engine listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
