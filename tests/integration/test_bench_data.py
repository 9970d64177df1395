"""``pfc bench data`` measures every loader and the opening of an index."""

import csv
from pathlib import Path

import pytest
from commands import pfc, run_warm
from small_faces import make_small_faces

from data_pipeline import RecordWriter

pytestmark = pytest.mark.integration

SMALL = [
    "--batch-size", "4", "--batches", "2", "--repetitions", "2", "--threads", "1", "--workers", "1",
    "--index-records", "1003",
]  # fmt: skip


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces"), identities=5, images_per_identity=3)


def test_every_loader_and_the_opening_are_measured(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("b")  # worker processes meet at a socket below it, whose path may have 107 bytes
    command = pfc("bench", "data", "--records", faces, *SMALL, "--csv", "out.csv", "--png", "out.png")
    done = run_warm(command, cwd=tmp_path)
    assert done.code == 0, done.err
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    throughput = [row for row in rows if row["measurement"] == "throughput"]
    opening = [row for row in rows if row["measurement"] == "opening"]
    assert [row["method"] for row in throughput] == ["dali", "pfc", "dali-flip", "pfc-flip", "pfc-cpu-flip", "pil-flip"]
    for row in throughput:
        assert 0 < float(row["images_per_second_q1"]) <= float(row["images_per_second"])
        assert float(row["over_bare"]) > 0
        assert float(row["over_pil"]) > 0
    assert float(throughput[0]["over_bare"]) == float(throughput[-1]["over_pil"]) == 1.0
    assert [(row["method"], row["records"], row["files"]) for row in opening] == [
        ("pfc", "1003", "1"), ("python-dict", "1003", "1"), ("pfc", "1003", "10"),
    ]  # fmt: skip
    assert all(float(row["seconds"]) > 0 for row in opening)
    assert done.out.startswith(f"15 images of {faces}\nbatches of 4 images of 48x48 on cpu; 1 decoding threads")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (tmp_path / ".tmp").glob("pfc-bench-*")} == set(), "nothing is left"


def test_synthetic_faces_are_the_default(tmp_path: Path) -> None:
    options = ["--images", "40", "--image-size", "32", "--methods", "pfc", "--batches", "1", "--repetitions", "1"]
    done = run_warm(pfc("bench", "data", *options, "--index-records", "0"), cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.startswith("50 images of synthetic faces\nbatches of 128 images of 32x32")
    assert "opening" not in done.out


def test_what_dali_cannot_decode_ends_in_one_line(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "a.rec") as writer:
        for identity in range(9):
            writer.write(identity, b"\xff\xd8 no image")
    done = run_warm(pfc("bench", "data", "--records", "a.rec", *SMALL, "--methods", "dali"), cwd=tmp_path)
    assert (done.code, len(done.error_lines)) == (2, 1), done.err
    assert "fails on these records" in done.err
