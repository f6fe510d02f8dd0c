"""Layout: the constants of a segment's bytes, which its writer and its readers share.

The modules `segment` and `frame` contain the tables of the fields. Source: journal/docs/FORMAT.md.
"""

from __future__ import annotations

from struct import Struct

CRC = Struct("<I")

SEGMENT_MAGIC = b"\x89JRNL\r\n\x1a"
SEGMENT_VERSION = 1
FLAG_OS = 1  # written with durability "os"
EPOCH_MAX = (1 << 32) - 1
SEGMENT_FIELDS = Struct("<8sHHI16sQQ12s")  # the CRC follows them
SEGMENT_CRC_OFFSET = SEGMENT_FIELDS.size
SEGMENT_HEADER_BYTES = SEGMENT_FIELDS.size + CRC.size

RECORDS = 1
MARK = 2
PAYLOAD_BYTES_MAX = 1 << 26
# The last LSN of a record. The LSN after it must fit into 64 bits too: a mark or the name of a
# segment states it.
LSN_MAX = (1 << 64) - 2
FRAME_FIELDS = Struct("<IQQQIIB3s")  # the CRC precedes them
FRAME_HEADER_BYTES = CRC.size + FRAME_FIELDS.size
FRAME_BYTES_MAX = FRAME_HEADER_BYTES + PAYLOAD_BYTES_MAX
WRITTEN_AT = Struct("<Q")
WRITTEN_AT_OFFSET = 24
# Every header matches this pattern at its byte 40. Searching for it is the cheapest way to find
# candidates.
KIND_OFFSET = 40
KIND_PATTERN = rb"[\x01\x02]\x00\x00\x00"
