"""Where images come from, how they are opened, and how results reach the disk."""

import errno
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from protocol_faces import photo, write_people

from data_pipeline import RecordReader, files_together
from data_pipeline.errors import DataError
from trainer.bench.eval_problem import COMPARISON, EXTRACTION, EvalEffort, EvalRow
from trainer.bench.eval_table import format_rows, write_csv
from trainer.evaluation.face_sets import open_face_set
from trainer.evaluation.image_sources import Decoding, FileImages, LooseCrops, RecordImages
from trainer.evaluation.number_table import read_csv_columns, read_numbers
from trainer.evaluation.protocol_result import ErrorCurve, ProtocolResult
from trainer.evaluation.protocol_store import save_protocol
from trainer.report.protocol_charts import protocol_pictures

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_people(tmp_path_factory.mktemp("people"), people=5, images=2)


@pytest.mark.parametrize("decoder", ["cpu", "dali"])
@pytest.mark.parametrize("side", [112, 48])
def test_files_and_records_open_alike_in_any_order(people: tuple[Path, Path], decoder: str, side: int) -> None:
    if decoder == "dali":
        pytest.importorskip("nvidia.dali")
    folder, records = people
    how = Decoding(image_size=side, device=CPU, decoder=decoder, threads=2)
    batches = [np.array([7, 0, 3]), np.array([9]), np.array([1, 1, 2]), np.array([4]), np.array([5]), np.array([6])]
    files = open_face_set(folder)
    assert isinstance(files.source, FileImages)
    assert files.identities.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    from_files = list(files.source.batches(batches, how))
    with RecordReader(records) as reader:
        from_records = list(RecordImages(reader).batches(batches, how))
    for batch, one, other in zip(batches, from_files, from_records, strict=True):
        assert one.shape == (len(batch), 3, side, side)
        assert torch.equal(one, other)
    assert torch.equal(from_files[2][0], from_files[2][1])
    if side == 112:
        pixels = np.asarray(Image.open(io.BytesIO(photo(4, 1))).convert("RGB")).transpose(2, 0, 1)
        assert np.abs(from_files[1][0].numpy() * 127.5 + 127.5 - pixels).max() < 1e-3


@pytest.mark.parametrize("decoder", ["cpu", "dali"])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path, decoder: str) -> None:
    if decoder == "dali":
        pytest.importorskip("nvidia.dali")
    folder, _ = write_people(tmp_path, people=3, images=1)
    broken = folder / "person_001" / "0.jpg"
    broken.write_bytes(broken.read_bytes()[:200] + b"\0" * 50)
    source = open_face_set(folder).source
    how = Decoding(image_size=112, device=CPU, decoder=decoder)
    with pytest.raises(DataError, match=r"person_001/0.jpg cannot be decoded"):
        list(source.batches([np.array([0]), np.array([1, 2])], how))
    broken.unlink()
    with pytest.raises(DataError, match=r"no such image \(1 of 3 are missing\)"):
        source.check(np.arange(3))
    with pytest.raises(DataError, match="cannot be read"):
        list(source.batches([np.array([1])], how))


def test_leaving_early_ends_the_threads(people: tuple[Path, Path]) -> None:
    source = open_face_set(people[0]).source
    how = Decoding(image_size=48, device=CPU, decoder="cpu")
    batches = source.batches([np.array([place]) for place in range(10)], how)
    next(batches)
    batches.close()


def test_loose_crops_come_in_order(tmp_path: Path) -> None:
    names, landmarks = [], []
    for number in range(7):
        Image.new("RGB", (60, 50), (number * 30, 0, 0)).save(tmp_path / f"{number}.png")
        names.append(f"{number}.png")
        landmarks.append([[20, 20], [40, 20], [30, 30], [23, 40], [37, 40]])
    source = LooseCrops(tmp_path, names, np.array(landmarks, dtype=np.float64))
    how = Decoding(image_size=32, device=CPU, threads=3)
    found = torch.cat(list(source.batches([np.array([6, 0]), np.array([3]), np.array([5, 1])], how)))
    middle = (found[:, 0, 16, 16] * 127.5 + 127.5).round().int().tolist()
    assert middle == [180, 0, 90, 150, 30]
    source.landmarks[4] = 7.0
    with pytest.raises(DataError, match=r"4.png cannot be used: the landmarks are all at one place"):
        list(source.batches([np.array([4])], how))


def test_face_sets_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="holds neither"):
        open_face_set(tmp_path / "empty")
    with pytest.raises(DataError, match="no such"):
        open_face_set(tmp_path / "none")


def test_millions_of_numbers_and_the_first_bad_line(tmp_path: Path) -> None:
    table = tmp_path / "pairs.txt"
    table.write_text("1 2 0\n\n3\t4 1\n")
    assert read_numbers(table, columns=3).tolist() == [[1, 2, 0], [3, 4, 1]]
    for content, wanted in (
        ("1 2 0\n3 4", "line 2"),
        ("1 2.5 0", "line 1"),
        ("", "lists nothing"),
        ("1 2 9e9", "line"),
    ):
        table.write_text(content)
        with pytest.raises(DataError, match=wanted):
            read_numbers(table, columns=3)
    table.write_bytes(b"\xff\xfe1")
    with pytest.raises(DataError, match="not UTF-8"):
        read_numbers(table, columns=3)
    table.write_text(f"TEMPLATE_ID,SUBJECT_ID\n{2**70},1\n")
    with pytest.raises(DataError, match="out of range"):
        read_csv_columns(table, ("TEMPLATE_ID", "SUBJECT_ID"))


def result() -> ProtocolResult:
    rates = np.array([0.0, 0.01, 0.1, 1.0])
    curves = (
        ErrorCurve("verification", "a", rates, np.array([0.2, 0.5, 0.9, 1.0])),
        ErrorCurve("sizes", "rank 1", np.array([10.0, 100.0]), np.array([0.9, 0.5])),
    )
    return ProtocolResult("set", "pairs", {"name": "set", "x": 1.5}, (), curves)


def test_pictures_are_pictures_and_equal_results_give_equal_ones() -> None:
    pictures = protocol_pictures(result().curves)
    assert set(pictures) == {f"{name}.{kind}" for name in ("roc", "det", "distractors") for kind in ("png", "svg")}
    for name, content in pictures.items():
        if name.endswith(".png"):
            assert Image.open(io.BytesIO(content)).size[0] > 800
        else:
            assert b"<svg" in content
    assert protocol_pictures(result().curves) == pictures
    assert protocol_pictures(()) == {}
    perfect = ErrorCurve("open set", "p", np.array([0.5, 1.0]), np.array([1.0, 1.0]))
    assert set(protocol_pictures([perfect])) == {"roc.png", "roc.svg", "det.png", "det.svg"}


def test_results_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_protocol(tmp_path, 7, result(), {"roc.png": b"old"})
    folder = tmp_path / "step_00000007" / "set"
    assert json.loads((folder / "result.json").read_text()) == {"name": "set", "x": 1.5}

    class Full(files_together.PendingFile):
        def finish(self) -> None:
            if self.path.name == "result.json":
                raise OSError(errno.ENOSPC, "No space left on device")
            super().finish()

    monkeypatch.setattr(files_together, "PendingFile", Full)
    with pytest.raises(OSError, match="No space left"):
        save_protocol(tmp_path, 7, result(), {"roc.png": b"new", "more.png": b"new"})
    assert sorted(path.name for path in folder.iterdir()) == ["result.json", "roc.png"]
    assert (folder / "roc.png").read_bytes() == b"old"
    with pytest.raises(OSError, match="No space left"):
        save_protocol(tmp_path / "new", 7, result(), {"roc.png": b"new"})
    assert not (tmp_path / "new").exists(), "nor a folder that was made for it"


def test_bench_eval_says_what_is_extrapolated(tmp_path: Path) -> None:
    effort = EvalEffort("mobilefacenet", 112, 512, 64, 128, "dali", 2, 1000, 100_000, 20, 3, 0)
    rows = [
        EvalRow(EXTRACTION, "images", 90.0, 100.0, 1.1, 1.0, 1.2, 1.05, 1.0, 1.1, 3),
        EvalRow(COMPARISON, "comparisons", 1e8, 1.2e8, 1.2, 1.1, 1.3, 1.2, 1.2, 1.2, 3),
    ]
    text = format_rows(rows, effort)
    assert "1.100x (1.000-1.200)" in text
    assert "100.00 M" in text
    assert "1,000,000 x 1,000,000 would take 2.78 h (extrapolated, not measured)" in text
    write_csv(tmp_path / "b.csv", rows, effort)
    heading, first, _ = (tmp_path / "b.csv").read_text().splitlines()
    assert heading.split(",")[:2] == ["backbone", "image_size"]
    assert "extraction" in first
