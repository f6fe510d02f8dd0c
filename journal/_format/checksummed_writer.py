"""ChecksummedWriter: writes a large file in chunks, with its CRC, and syncs it in parts."""

from __future__ import annotations

from journal._disk.disk import File, write_all
from journal._format.crc32c import checksum

_CHUNK_BYTES = 1 << 16
_SYNC_BYTES = 8 << 20  # a sync of all of a large checkpoint would delay those of the log


class ChecksummedWriter:
    """A writer that buffers, and keeps the CRC of everything that it has written."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._offset = self._synced = 0
        self.crc = 0
        self.pending = bytearray()

    @property
    def size_bytes(self) -> int:
        """The number of bytes added so far."""
        return self._offset + len(self.pending)

    def add(self, data: bytes) -> None:
        """Add data, and write what is pending once it fills a chunk."""
        self.pending += data
        if len(self.pending) >= _CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending. Sync the file if enough was written since the last sync."""
        data = bytes(self.pending)
        self.pending.clear()
        self.crc = checksum(data, self.crc)
        write_all(self._file, data, self._offset)
        self._offset += len(data)
        if self._offset - self._synced >= _SYNC_BYTES:
            self._file.sync()
            self._synced = self._offset
