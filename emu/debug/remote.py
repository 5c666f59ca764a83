"""How do packets of gdb's remote serial protocol travel? Framing, checksums, replies (gdb manual, E.1)."""

from __future__ import annotations

import select
import socket

INTERRUPT = b"\x03"
MAX_PACKET = 0x4000


def unescape(data: bytes) -> bytes:
    """Undoes } escapes of binary data."""
    out, at = bytearray(), 0
    while at < len(data):
        if data[at] == 0x7D and at + 1 < len(data):
            out.append(data[at + 1] ^ 0x20)
            at += 2
        else:
            out.append(data[at])
            at += 1
    return bytes(out)


class Closed(Exception):
    """The debugger has gone."""


class Channel:
    """One connection to a debugger."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.buffer = bytearray()
        self.acknowledge = True
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Ends the connection."""
        self.socket.close()

    def _fill(self) -> None:
        try:
            data = self.socket.recv(4096)
        except OSError:
            data = b""
        if not data:
            raise Closed
        self.buffer += data

    def interrupted(self) -> bool:
        """Whether the debugger asks a running guest to stop; does not wait."""
        if not self.buffer and not select.select([self.socket], [], [], 0)[0]:
            return False
        if not self.buffer:
            self._fill()
        while self.buffer and self.buffer[0] in b"+-":
            del self.buffer[:1]
        if self.buffer[:1] != INTERRUPT:
            return False
        del self.buffer[:1]
        return True

    def receive(self) -> bytes:
        """The next packet's content; waits. Raises Closed."""
        while True:
            start, end = self.buffer.find(b"$"), -1
            if start >= 0:
                end = self.buffer.find(b"#", start)
            if end < 0 or len(self.buffer) < end + 3:
                if len(self.buffer) > 2 * MAX_PACKET:
                    raise Closed
                self._fill()
                continue
            body, digits = bytes(self.buffer[start + 1 : end]), bytes(self.buffer[end + 1 : end + 3])
            del self.buffer[: end + 3]
            good = f"{sum(body) & 0xFF:02x}".encode() == digits.lower()
            if self.acknowledge:
                self._put(b"+" if good else b"-")
            if good:
                return body

    def _put(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError:
            raise Closed from None

    def send(self, text: str) -> None:
        """One packet."""
        body = text.encode("ascii")
        self._put(b"$" + body + f"#{sum(body) & 0xFF:02x}".encode())
