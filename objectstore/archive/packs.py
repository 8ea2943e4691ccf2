"""Packs: frames, one after the other, in objects of up to 16 MiB; at most two in memory."""

import threading
from collections.abc import Callable
from mmap import MADV_DONTNEED, mmap

from objectstore.archive.crew import Buffers, Crew, Monitor
from objectstore.archive.manifest import Pack
from objectstore.archive.model import PACK
from objectstore.archive.pieces import Frame
from objectstore.archive.seal import TAG, Sealer
from objectstore.store import Buffer, Corrupt, Stat, checksum

IN_MEMORY = 2
Put = Callable[[int, Buffer], Stat]


class Packs:
    """Seal frames into packs, and have ``uploads`` put the full ones.  ``write`` may be called from any thread."""

    def __init__(self, sealer: Sealer, put: Put, monitor: Monitor, uploads: Crew) -> None:
        self._sealer = sealer
        self._put = put
        self._uploads = uploads
        self._buffers = Buffers(monitor, IN_MEMORY, PACK)
        self._lock = threading.Lock()
        self._number = 0
        self._frames = 0
        self._used = 0
        self._buffer: mmap | None = None
        self.written: dict[int, Pack] = {}
        self.stored_bytes = 0

    def write(self, data: Buffer, plain: int) -> Frame:
        """Seal ``data`` as the next frame of the pack that is filling; say where it came to lie."""
        length = len(data) + TAG
        with self._lock:
            if self._used + length > PACK:
                self._send()
            if self._buffer is None:
                self._buffer = self._buffers.take()
            frame = Frame(self._sealer.attempt, self._number, self._frames, self._used, length, plain)
            with memoryview(self._buffer) as view, view[self._used : self._used + length] as room:
                self._sealer.seal_frame(frame.pack, frame.number, data, room)
            self._used += length
            self._frames += 1
            return frame

    def finish(self) -> None:
        """Send the last pack; whoever called ``write`` has ended."""
        with self._lock:
            if self._used:
                self._send()

    def close(self) -> None:
        """Let the buffers go; nothing is written any more."""
        self._buffer = None
        self._buffers.close()

    def _send(self) -> None:
        buffer, number, used = self._buffer, self._number, self._used
        if buffer is None:
            return
        self._buffer, self._used, self._frames = None, 0, 0
        self._number += 1
        self._uploads.submit(lambda: self._upload(buffer, number, used))

    def _upload(self, buffer: mmap, number: int, used: int) -> None:
        with memoryview(buffer) as view, view[:used] as data:
            crc = checksum([data])
            answer = self._put(number, data)
        if answer.size != used or answer.crc not in (None, crc):
            raise Corrupt(f"pack {answer.name}: the store does not hold what was sent")
        self.written[number] = Pack(self._sealer.attempt, number, used, crc)
        self.stored_bytes += used
        # The next pack fills slowly; what this one filled need not wait for it.
        buffer.madvise(MADV_DONTNEED)
        self._buffers.give(buffer)
