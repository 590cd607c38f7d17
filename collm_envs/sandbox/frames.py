"""Messages between the sandbox's processes: a length, then JSON. Standard library only.

For every process of the sandbox. A frame from a confined child is hostile: its length is capped before anything
is read, and it is parsed only where the plan says so.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

HEADER = struct.Struct("!I")
MAX_ANSWER = 1 << 20  # bytes that a confined child may send in one frame
MAX_TOTAL = 1 << 23  # bytes that it may send in all
MAX_FRAME = 1 << 28  # bytes between trusted processes

_dumps = json.JSONEncoder(separators=(",", ":")).encode
_loads = json.JSONDecoder().decode


class Closed(Exception):
    """The other side has gone."""


class BadFrame(Exception):
    """Not a frame, or one above the cap."""


def pack(message: Any) -> bytes:
    """A message as bytes; ASCII JSON, so that lone surrogates pass."""
    body = _dumps(message).encode("ascii")
    return HEADER.pack(len(body)) + body


def unpack(body: bytes) -> Any:
    """The message of a frame's body.

    Raises:
        BadFrame: when it is not JSON, or nested too deep.
    """
    try:
        return _loads(body.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"not a message: {type(error).__name__}") from None


def write(fd: int, data: bytes) -> None:
    """Write all of it.

    Raises:
        Closed: when nobody reads any more.
    """
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except (BrokenPipeError, ConnectionResetError):
        raise Closed from None


def send(fd: int, message: Any) -> None:
    """Pack and write one message."""
    write(fd, pack(message))


class Reader:
    """Frames out of a stream that comes in pieces.

    Args:
        cap: longest body accepted, in bytes.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        self._buffer += data

    def wanting(self) -> int:
        """Bytes until the next frame is whole, or until its length is known."""
        have = len(self._buffer)
        end = HEADER.size if have < HEADER.size else HEADER.size + HEADER.unpack_from(self._buffer)[0]
        return max(end - have, 1)

    def pop(self) -> bytes | None:
        """The next body, or None while it is incomplete.

        Raises:
            BadFrame: when the announced length is above the cap.
        """
        if len(self._buffer) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._buffer)
        if length > self.cap:
            raise BadFrame(f"a frame of {length} bytes")
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return body

    def read(self, fd: int) -> bytes:
        """Block until a whole frame is there.

        Raises:
            Closed: when the stream ends first.
        """
        while (body := self.pop()) is None:
            try:
                data = os.read(fd, 65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed
            self.feed(data)
        return body
