"""Record files against MXNet 1.9.1 itself, where an environment with it stands in ``.venv-mxnet``.

MXNet needs numpy < 1.24: make that environment with ``python3.11 -m venv .venv-mxnet`` and
``.venv-mxnet/bin/pip install mxnet==1.9.1 'numpy<1.24'``.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import RecordReader, RecordWriter
from data_pipeline.recordio import MAGIC_BYTES

PYTHON = Path(__file__).parents[2] / ".venv-mxnet" / "bin" / "python"
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-mxnet with MXNet 1.9.1"),
]

# Payloads of every alignment, with and without the magic number.
PAYLOADS = [b"\xff\xd8" + bytes(n) for n in range(4)] + [MAGIC_BYTES * n + b"x" * n for n in range(1, 6)]
IDENTITIES = [0, 0, 1, 5, 5, 5, 2**24 - 1, 2**24 + 1, 2**40 + 1]

WRITE = """
import sys, mxnet as mx
record = mx.recordio.MXIndexedRecordIO(sys.argv[1] + "/m.idx", sys.argv[1] + "/m.rec", "w")
magic = bytes.fromhex("0a23d7ce")
payloads = [b"\\xff\\xd8" + bytes(n) for n in range(4)] + [magic * n + b"x" * n for n in range(1, 6)]
for key, payload in enumerate(payloads):
    record.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, float(key // 2), key, 0), payload))
record.close()
"""

READ = """
import sys, mxnet as mx
record = mx.recordio.MXIndexedRecordIO(sys.argv[1] + "/p.idx", sys.argv[1] + "/p.rec", "r")
for key in record.keys:
    header, payload = mx.recordio.unpack(record.read_idx(key))
    label = [float(header.label)] if header.flag == 0 else [float(x) for x in header.label]
    print(key, header.flag, header.id, header.id2, *label, payload.hex(), sep=",")
"""


def mxnet(code: str, folder: Path) -> str:
    done = subprocess.run([PYTHON, "-c", code, folder], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_mxnet_wrote_is_read(tmp_path: Path) -> None:
    mxnet(WRITE, tmp_path)
    reader = RecordReader(tmp_path / "m.rec")
    assert [record.jpeg for record in reader] == PAYLOADS
    assert reader.identities.tolist() == [number // 2 for number in range(len(PAYLOADS))]


def test_mxnet_reads_what_we_wrote(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "p.rec") as writer:
        for identity, payload in zip(IDENTITIES, PAYLOADS, strict=True):
            writer.write(identity, payload)
    lines = [line.split(",") for line in mxnet(READ, tmp_path).splitlines()]
    count = len(PAYLOADS)
    assert lines[0][:6] == ["0", "2", "0", "0", f"{count + 1}.0", f"{count + 1 + len(set(IDENTITIES))}.0"]
    for key, (line, identity, payload) in enumerate(zip(lines[1:], IDENTITIES, PAYLOADS, strict=False), start=1):
        assert bytes.fromhex(line[-1]) == payload
        labels = [float(word) for word in line[4:-1]]
        assert line[:4] == [str(key), "0" if identity < 2**24 else "2", str(key), "0" if identity < 2**24 else "20"]
        assert labels == ([identity] if identity < 2**24 else [identity >> 20, identity & 0xFFFFF])
    spans = np.array([[float(word) for word in line[4:6]] for line in lines[count + 1 :]], dtype=np.int64)
    assert spans.tolist() == [[1, 3], [3, 4], [4, 7], [7, 8], [8, 9], [9, 10]]
