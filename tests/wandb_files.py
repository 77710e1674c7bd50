"""Reads the files that W&B writes in offline mode."""

import json
import struct
from pathlib import Path

BLOCK, MAGIC = 32768, b":W&B"  # of LevelDB's log format, in which W&B keeps the records of a run


def records_of(path: Path) -> list:
    """Returns the records of an offline run."""
    from wandb.proto.wandb_internal_pb2 import Record
    data, position, part, records = path.read_bytes(), 7, b"", []
    assert data.startswith(MAGIC)
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _checksum, length, kind = struct.unpack_from("<IHB", data, position)
        part += data[position + 7:position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the only part, or the last one
            records.append(Record.FromString(part))
            part = b""
    return records


def history(path: Path) -> list[dict]:
    """Returns the rows that an offline run logged."""
    return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for record in records_of(path) if record.WhichOneof("record_type") == "history"]


def offline_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
