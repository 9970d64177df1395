"""What MXNet itself does with record files; run by the interpreter of ``.venv-mxnet``, which cannot import ``pfc``.

usage: mxnet_side.py write|read FOLDER...

A folder holds one data set: ``train.rec`` and ``train.idx``. ``write`` makes both from ``to_write.json``, a list of
records in file order. ``read`` prints one JSON object, folder name -> what MXNet finds, and copies every record into
``copy.rec`` and ``copy.idx``. Bytes travel as hexadecimal text.
"""

import json
import numbers
import sys
from pathlib import Path
from typing import Any

import mxnet as mx  # type: ignore[import-not-found, unused-ignore]


def write(folder: Path) -> None:
    records = mx.recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
    for record in json.loads((folder / "to_write.json").read_text()):
        header = mx.recordio.IRHeader(0, record["label"], record["id"], 0)
        records.write_idx(record["key"], mx.recordio.pack(header, bytes.fromhex(record["payload"])))
    records.close()


def read(folder: Path) -> dict[str, Any]:
    records = mx.recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "r")
    copy = mx.recordio.MXIndexedRecordIO(str(folder / "copy.idx"), str(folder / "copy.rec"), "w")
    found = []
    for key in records.keys:
        content = records.read_idx(key)
        copy.write_idx(key, content)
        header, payload = mx.recordio.unpack(content)
        labels = [float(label) for label in header.label] if header.flag else [float(header.label)]
        found.append({"key": key, "labels": labels, "id": header.id, "id2": header.id2, "payload": payload.hex()})
    copy.close()
    return {"records": found, "sequence": count(folder / "train.rec"), "faces": faces(records)}


def count(path: Path) -> int:
    """Records met when the file is read from its beginning to its end, without the index."""
    records = mx.recordio.MXRecordIO(str(path), "r")
    number = 0
    while records.read() is not None:
        number += 1
    return number


def faces(records: Any) -> list[tuple[int, str]]:
    """(identity, payload) of each image, chosen as arcface_torch's ``MXFaceDataset`` chooses them."""
    header, _ = mx.recordio.unpack(records.read_idx(0))
    keys = range(1, int(header.label[0])) if header.flag > 0 else list(records.keys)
    images = []
    for key in keys:
        header, payload = mx.recordio.unpack(records.read_idx(key))
        is_number = isinstance(header.label, numbers.Number)
        images.append((int(header.label if is_number else header.label[0]), payload.hex()))
    return images


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[2:]]
    if sys.argv[1] == "write":
        for each in folders:
            write(each)
    else:
        print(json.dumps({each.name: read(each) for each in folders}))
