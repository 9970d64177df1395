"""What MXNet itself does with record files; run by the interpreter of ``.venv-mxnet``, which cannot import ``pfc``.

usage: mxnet_side.py write|read|sequential|pack_img FOLDER...
       mxnet_side.py iterate RECORDS LABEL_WIDTH 0|1

A folder holds one data set: ``train.rec`` and ``train.idx``. ``write`` makes both from ``to_write.json``, a list of
records in file order. ``read`` prints one JSON object, folder name -> what MXNet finds, and copies every record into
``copy.rec`` and ``copy.idx``. Bytes travel as hexadecimal text. ``sequential`` makes ``train.rec`` alone, as
``MXRecordIO`` writes it. ``pack_img`` lets MXNet encode the PNGs ``0.png``, ``1.png``, ... of the folder: even ones
as JPEG with a scalar label, odd ones as PNG with the labels [number, 0.5]; the decoded pixels go to ``pixels.npy``.
``iterate`` prints what ``ImageRecordIter`` finds, without or with the index.
"""

import json
import numbers
import sys
from pathlib import Path
from typing import Any

import mxnet as mx  # type: ignore[import-not-found, unused-ignore]
import numpy as np


def write(folder: Path) -> None:
    records = mx.recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
    for record in json.loads((folder / "to_write.json").read_text()):
        header = mx.recordio.IRHeader(0, record["label"], record["id"], 0)
        records.write_idx(record["key"], mx.recordio.pack(header, bytes.fromhex(record["payload"])))
    records.close()


def sequential(folder: Path) -> None:
    records = mx.recordio.MXRecordIO(str(folder / "train.rec"), "w")
    for record in json.loads((folder / "to_write.json").read_text()):
        header = mx.recordio.IRHeader(0, record["label"], record["id"], 0)
        records.write(mx.recordio.pack(header, bytes.fromhex(record["payload"])))
    records.close()


def pack_img(folder: Path) -> None:
    import cv2  # type: ignore[import-not-found, unused-ignore]

    records = mx.recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
    pixels = []
    for number in range(len(list(folder.glob("*.png")))):
        image = cv2.imread(str(folder / f"{number}.png"))
        odd = number % 2
        header = mx.recordio.IRHeader(0, [number, 0.5] if odd else number, number, 0)
        packed = mx.recordio.pack_img(header, image, quality=9 if odd else 95, img_fmt=".png" if odd else ".jpg")
        records.write_idx(number, packed)
        pixels.append(mx.recordio.unpack_img(packed)[1][:, :, ::-1])  # BGR to RGB
    records.close()
    np.save(folder / "pixels.npy", np.stack(pixels))


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
    keys = range(1, min(int(header.label[0]), len(records.keys))) if header.flag > 0 else list(records.keys)
    images = []
    for key in keys:
        header, payload = mx.recordio.unpack(records.read_idx(key))
        is_number = isinstance(header.label, numbers.Number)
        images.append((int(header.label if is_number else header.label[0]), payload.hex()))
    return images


def iterate(records: Path, width: int, with_index: bool) -> dict[str, list[Any]]:
    """Labels and mean greys as ``ImageRecordIter`` gives them."""
    index = {"path_imgidx": str(records.with_suffix(".idx"))} if with_index else {}
    batches = mx.io.ImageRecordIter(
        path_imgrec=str(records), data_shape=(3, 32, 32), label_width=width, batch_size=1, round_batch=False,
        preprocess_threads=1, **index,
    )  # fmt: skip
    labels: list[list[float]] = []
    greys: list[float] = []
    for batch in batches:
        labels.append(batch.label[0].asnumpy().ravel().tolist())
        greys.append(float(batch.data[0].asnumpy().mean()))
    return {"labels": labels, "greys": greys}


if __name__ == "__main__":
    if sys.argv[1] == "iterate":
        print(json.dumps(iterate(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1")))
        sys.exit()
    folders = [Path(argument) for argument in sys.argv[2:]]
    actions = {"write": write, "sequential": sequential, "pack_img": pack_img}
    if sys.argv[1] in actions:
        for each in folders:
            actions[sys.argv[1]](each)
    else:
        print(json.dumps({each.name: read(each) for each in folders}))
