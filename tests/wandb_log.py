"""Reads the file that wandb keeps of an offline run: blocks of a LevelDB log with protocol buffers in them."""

import json
import struct

BLOCK, HEADER = 32768, 7


def records(file):
    """The records of a `run-ID.wandb`, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), HEADER, []
    assert data[:4] == b":W&B"
    while at < len(data):
        if BLOCK - at % BLOCK < HEADER:  # the rest of a block that no header fits into
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        parts.append(data[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def history(file):
    """The logged rows: name -> value, wandb's own names left out."""
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            yield {name: value for name, value in items.items() if not name.startswith("_")}


def run(file):
    """What the file says of the run: id, project, display name and config."""
    (found,) = [r.run for r in records(file) if r.WhichOneof("record_type") == "run"][:1]
    config = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in found.config.update}
    return {"id": found.run_id, "project": found.project, "name": found.display_name, "config": config}
