"""What streams cost the gateway's processor under each padding.

Starts engine, node and one gateway for each profile, opens streams that last, and reads processor times from /proc
over a while in which all of them run. Prints percent of one processor, for the gateway and the node. Each stream has 25
events a second, some 6,400 bytes to its caller: where the last column has much less, the machine was too busy to say it, and
the figures are worth nothing. Linux; standard library only.
"""

import argparse
import asyncio
import json
import pathlib
import sys
import tempfile
import time

from stack import KEY, Stack


def request(seed: int) -> bytes:
    body = json.dumps({"model": "scripted", "stream": True, "seed": seed, "max_tokens": 100_000,
                       "messages": [{"role": "user", "content": "Which rash?"}]}).encode()
    return (f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body


class Reader(asyncio.Protocol):
    """Reads a stream and keeps nothing but how much it was."""

    def __init__(self, asked: bytes):
        self.asked, self.bytes, self.status, self.lost = asked, 0, b"", False

    def connection_made(self, transport) -> None:
        transport.write(self.asked)

    def data_received(self, data: bytes) -> None:
        self.status = self.status or data[:12]
        self.bytes += len(data)

    def connection_lost(self, _) -> None:
        self.lost = True


async def measure(stack: Stack, profile: str, streams: int, seconds: float) -> str:
    """Percent of a processor while `streams` run, as a row of the table."""
    gateway = await asyncio.to_thread(stack.gateway, f"{profile}-cpu", profile, stack.node.address)
    await asyncio.sleep(2)
    loop, readers, transports = asyncio.get_running_loop(), [], []
    for number in range(streams):
        transport, reader = await loop.create_connection(lambda: Reader(request(number)), *gateway.host_and_port)
        readers.append(reader)
        transports.append(transport)
        await asyncio.sleep(0.01)
    await asyncio.sleep(2)
    before, begin = [stack.cpu_s(process) for process in (gateway, stack.node)], time.monotonic()
    carried = sum(reader.bytes for reader in readers)
    await asyncio.sleep(seconds)
    spent, took = [stack.cpu_s(process) for process in (gateway, stack.node)], time.monotonic() - begin
    carried = sum(reader.bytes for reader in readers) - carried
    bad = [reader for reader in readers if reader.lost or reader.status != b"HTTP/1.1 200"]
    for transport in transports:
        transport.close()
    if bad:
        sys.exit(f"{profile}: {len(bad)} of {streams} streams did not run: {bad[0].status!r}")
    await asyncio.to_thread(gateway.stop)
    ours, node = (100 * (after - at) / took for after, at in zip(spent, before, strict=True))
    return f"| {profile} | {streams} | {ours:.1f} % | {node:.1f} % | {carried / took / streams:.0f} |"


async def run(arguments: argparse.Namespace, stack: Stack) -> None:
    print("| profile | streams | gateway | node | bytes/s to each caller |\n|---|---|---|---|---|", flush=True)
    for profile in arguments.profiles:
        print(await measure(stack, profile, arguments.streams, arguments.seconds), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", help="a release build")
    parser.add_argument("--profiles", type=lambda text: text.split(","), default=["off", "bucket", "paced"])
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stack(arguments.binary, pathlib.Path(folder), False) as stack:
        stack.begin()
        asyncio.run(run(arguments, stack))


if __name__ == "__main__":
    main()
