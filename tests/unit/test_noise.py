"""Label noise: exact counts, nested shares, the truth beside, everything else as it was."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import DataError, RecordReader, RecordWriter
from data_pipeline.noise import Noise, draw_noise, write_noisy
from data_pipeline.record_set import find_records
from data_pipeline.shard_cut import ShardCut

pytestmark = pytest.mark.unit

IDENTITIES = np.repeat([0, 1, 5, 6, 2**24 + 1], [40, 1, 30, 25, 34])

SHARES = st.floats(0, 0.5)

NAMES = "".join(f"{who}\tperson nº {who}\n" for who in sorted(set(IDENTITIES.tolist())))


def write(folder: Path, identities: list[int], tag: bytes) -> Path:
    folder.mkdir()
    with RecordWriter(folder / "train.rec") as writer:
        for number, identity in enumerate(identities):
            writer.write(identity, tag + b"%d" % number)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write(tmp_path / "clean", IDENTITIES.tolist(), b"face ")
    (folder / "identities.tsv").write_text(NAMES, "utf-8")
    return folder


def rows(folder: Path) -> list[list[str]]:
    lines = (folder / "noise.tsv").read_text().split("\n")
    assert lines[0].split("\t") == ["index", "kind", "old", "new", "distractor"]
    assert lines[-1] == ""
    return [line.split("\t") for line in lines[1:-1]]


@pytest.mark.parametrize("cut", [None, ShardCut(shards=3)])
def test_the_truth_is_written_beside(source: Path, tmp_path: Path, cut: ShardCut | None) -> None:
    others = write(tmp_path / "others", list(range(50)), b"stranger ")
    write_noisy(
        source, tmp_path / "out", closed_set=0.2, open_set=0.1, distractors=others, seed=4, cut=cut
    )  # fmt: skip
    before = list(RecordReader(source / "train.rec"))
    after = list(RecordReader(find_records(tmp_path / "out")))
    strangers = list(RecordReader(others / "train.rec"))
    truth = rows(tmp_path / "out")
    indices = [int(row[0]) for row in truth]
    assert indices == sorted(set(indices))
    assert [row[1] for row in truth].count("closed") == 26
    assert [row[1] for row in truth].count("open") == 13
    changed = dict(zip(indices, truth, strict=True))
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if index not in changed:
            assert new == old
            continue
        _, kind, was, now, distractor = changed[index]
        assert (int(was), int(now)) == (old.identity, new.identity)
        if kind == "closed":
            assert new.jpeg == old.jpeg
            assert new.identity != old.identity
            assert distractor == ""
        else:
            assert new.identity == old.identity
            assert new.jpeg == strangers[int(distractor)].jpeg
    assert (tmp_path / "out" / "identities.tsv").read_text("utf-8") == NAMES


@settings(max_examples=80, deadline=None)
@given(
    shares=st.lists(SHARES, min_size=2, max_size=2), others=st.lists(SHARES, min_size=2, max_size=2),
    seed=st.integers(0, 1 << 40),
)  # fmt: skip
def test_larger_shares_include_smaller_ones(shares: list[float], others: list[float], seed: int) -> None:
    def drawn(closed_set: float, open_set: float) -> tuple[Noise, dict[int, int], dict[int, int]]:
        noise = draw_noise(IDENTITIES, closed_set=closed_set, open_set=open_set, num_distractors=65, seed=seed)
        return (
            noise, dict(zip(noise.closed.tolist(), noise.wrong.tolist(), strict=True)),
            dict(zip(noise.opened.tolist(), noise.distractor.tolist(), strict=True)),
        )  # fmt: skip

    (small, closed, opened), (_, more_closed, more_opened) = (
        drawn(min(shares), min(others)),
        drawn(max(shares), max(others)),
    )
    assert closed.items() <= more_closed.items()
    assert opened.items() <= more_opened.items()
    assert len(closed) == round(min(shares) * 130)
    assert len(opened) == round(min(others) * 130)
    assert not closed.keys() & opened.keys()
    assert len(set(opened.values())) == len(opened), "no stranger comes twice"
    assert (small.wrong != IDENTITIES[small.closed]).all()
    assert set(small.wrong) <= set(IDENTITIES.tolist())


def test_wrong_identities_are_uniform() -> None:
    identities = np.repeat(np.arange(5), [8000, 1, 4000, 3000, 1000])
    noise = draw_noise(identities, closed_set=1.0, open_set=0.0, seed=1)
    for identity, count in ((0, 8000), (2, 4000)):
        counts = np.bincount(noise.wrong[identities[noise.closed] == identity], minlength=5)
        assert counts[identity] == 0
        expected = count / 4
        assert (np.abs(np.delete(counts, identity) - expected) < 5 * expected**0.5).all()
    half = draw_noise(identities, closed_set=0.5, open_set=0.0, seed=1)
    assert abs((identities[half.closed] == 0).mean() - 0.5) < 0.02, "whose labels are wrong is uniform too"


def test_other_seeds_change_other_images() -> None:
    one, other = (draw_noise(IDENTITIES, closed_set=0.3, open_set=0.0, seed=seed) for seed in (0, 1))
    assert one.closed.tolist() != other.closed.tolist()


def test_no_noise_is_a_copy(source: Path, tmp_path: Path) -> None:
    write_noisy(source, tmp_path / "out")
    assert (tmp_path / "out" / "train.rec").read_bytes() == (source / "train.rec").read_bytes()
    assert rows(tmp_path / "out") == []


def test_what_cannot_be_done(source: Path, tmp_path: Path) -> None:
    few = write(tmp_path / "few", [0, 1], b"stranger ")
    out = tmp_path / "out"
    for options, message in (
        ({"open_set": 0.1}, "--distractors"),
        ({"open_set": 0.1, "distractors": few}, "13 images of other identities are needed .* there are 2"),
        ({"open_set": 0.1, "distractors": tmp_path / "absent"}, "does not exist"),
        ({"closed_set": 1.1}, "shares from 0 to 1"),
        ({"closed_set": -0.1}, "shares from 0 to 1"),
        ({"closed_set": float("nan")}, "shares from 0 to 1"),
        ({"closed_set": 0.6, "open_set": 0.5, "distractors": few}, "together at most 1"),
        ({"seed": -1}, "a seed from 0"),
    ):
        with pytest.raises(DataError, match=message):
            write_noisy(source, out, **options)
        assert not out.exists()
    with pytest.raises(DataError, match="has only one"):
        write_noisy(write(tmp_path / "one", [3, 3, 3], b""), out, closed_set=0.5)
    with pytest.raises(DataError, match="choose an"):
        write_noisy(source, few / "out", open_set=0.1, distractors=few)
