"""What an observer between two machines sees of their TCP connections: which way, when, how many bytes.

A relay gives on every byte as it comes and notes the units that the bytes show without a key: TLS records by their
headers, or HTTP/2 frames where a leg has no TLS (what is sealed stays sealed in both). Anything else is noted read by read.
"""

import asyncio
import time
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TLS_HEADER, FRAME_HEADER = 5, 9
HANDSHAKE = 22
DATA, HEADERS = 0, 1


@dataclass(frozen=True, slots=True)
class Unit:
    """One record, frame or read."""

    at: float
    """When its last byte came, in seconds of the monotonic clock."""
    down: bool
    """Whether it goes to the one who asked."""
    size: int
    kind: int = -1
    """Type of the record or frame; -1 for a read."""
    stream: int = 0
    """Stream of the frame."""


class Direction:
    """Finds the units in one direction of a connection."""

    def __init__(self, down: bool, units: list[Unit]):
        self.down, self.units, self.rest = down, units, b""

    def feed(self, framing: str, data: bytes) -> None:
        at = time.monotonic()
        if framing == "reads":
            self.units.append(Unit(at, self.down, len(data)))
            return
        self.rest += data
        if framing == "http2" and self.rest.startswith(PREFACE):
            self.rest = self.rest[len(PREFACE):]
        while (unit := self.next_unit(framing, at)) is not None:
            self.units.append(unit)

    def next_unit(self, framing: str, at: float) -> Unit | None:
        rest = self.rest
        header = TLS_HEADER if framing == "tls" else FRAME_HEADER
        if len(rest) < header:
            return None
        if framing == "tls":
            kind, stream, length = rest[0], 0, int.from_bytes(rest[3:5])
        else:
            kind, stream, length = rest[3], int.from_bytes(rest[5:9]) & 0x7FFF_FFFF, int.from_bytes(rest[:3])
        size = header + length
        if len(rest) < size:
            return None
        self.rest = rest[size:]
        return Unit(at, self.down, size, kind, stream)


class Connection:
    """One connection through the relay. What it is shows in the first bytes of who connects."""

    def __init__(self, units: list[Unit]):
        self.framing = None
        self.up, self.down = Direction(False, units), Direction(True, units)

    def feed(self, down: bool, data: bytes) -> None:
        if self.framing is None:
            first = data[0]
            self.framing = "tls" if first == HANDSHAKE else "http2" if data.startswith(b"PRI * ") else "reads"
        (self.down if down else self.up).feed(self.framing, data)


class Side(asyncio.Protocol):
    """One end of a relayed connection; it holds back what comes until the other end is there."""

    def __init__(self, down: bool, connection: Connection):
        self.is_down, self.connection = down, connection
        self.other, self.transport, self.held = None, None, []

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.connection.feed(self.is_down, data)
        if self.other is None:
            self.held.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, _) -> None:
        if self.other is not None:
            self.other.transport.close()

    def meet(self, other: "Side") -> None:
        self.other = other
        other.transport.writelines(self.held)
        self.held.clear()
        if self.transport.is_closing():
            other.transport.close()


@dataclass
class Leg:
    """A relay to one address, and all that it saw since it was last asked."""

    target: tuple[str, int] = ("", 0)
    units: list[Unit] = field(default_factory=list)
    server: asyncio.Server | None = None

    async def open(self) -> str:
        """Listens; returns its address. `target` may be set later."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self.accept, "127.0.0.1", 0)
        return "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]

    def accept(self) -> Side:
        connection = Connection(self.units)
        near = Side(False, connection)
        asyncio.get_running_loop().create_task(self.lead_on(near, connection))
        return near

    async def lead_on(self, near: Side, connection: Connection) -> None:
        try:
            _, far = await asyncio.get_running_loop().create_connection(lambda: Side(True, connection), *self.target)
        except OSError:
            near.transport.close()
            return
        far.meet(near)
        near.meet(far)

    def take(self) -> list[Unit]:
        taken = list(self.units)
        self.units.clear()
        return taken
