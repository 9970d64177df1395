"""Resharding: whatever is asked for, images are neither lost, nor doubled, nor changed."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline import DataError, Properties, RecordReader, RecordWriter, write_properties
from data_pipeline.hold_out import hold_out
from data_pipeline.pairs import read_pairs
from data_pipeline.record_set import find_records
from data_pipeline.recordio import MAGIC_BYTES
from data_pipeline.reshard import Resharded, ReshardOptions, reshard
from data_pipeline.shard_cut import ShardCut

pytestmark = pytest.mark.unit

Images = list[tuple[int, bytes]]
COUNTS = {0: 3, 1: 1, 3: 5, 4: 2, 9: 4}
IMAGES: Images = [(who, b"%d/%d" % (who, number)) for who, count in COUNTS.items() for number in range(count)]


@pytest.fixture(autouse=True, scope="module")
def without_fsync() -> Iterator[None]:
    """Nothing is cut off from power here: waiting for the disk would only take time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def write(folder: Path, images: Images, names: dict[int, str] | None = None) -> Path:
    folder.mkdir()
    with RecordWriter(folder / "train.rec") as writer:
        for identity, jpeg in images:
            writer.write(identity, jpeg)
    write_properties(folder, Properties(max(identity for identity, _ in images) + 1, 8, 8))
    if names:
        (folder / "identities.tsv").write_text("".join(f"{n}\t{name}\n" for n, name in names.items()), "utf-8")
    return folder


def read(folder: Path) -> Images:
    with RecordReader(find_records(folder)) as reader:
        return [tuple(record) for record in reader]


def resharded(output: Path, *inputs: Path, **options: Any) -> Resharded:
    return reshard(list(inputs), output, ReshardOptions(**options))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in", IMAGES, {0: "ann", 1: "bob", 3: "cid", 4: "dan", 9: "eve"})


def test_without_options_it_is_a_copy(source: Path, tmp_path: Path) -> None:
    resharded(tmp_path / "out", source)
    for path in source.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_split_and_merged_again(source: Path, tmp_path: Path) -> None:
    result = resharded(tmp_path / "split", source, cut=ShardCut(shards=4))
    assert [path.name for path in result.records] == [f"train-{n:05}-of-00004.rec" for n in range(4)]
    assert (result.identities, result.images, result.dropped_images) == (5, 15, 0)
    resharded(tmp_path / "merged", tmp_path / "split")
    assert (tmp_path / "merged" / "train.rec").read_bytes() == (source / "train.rec").read_bytes()
    assert (tmp_path / "merged" / "train.idx").read_bytes() == (source / "train.idx").read_bytes()
    resharded(tmp_path / "listed", *find_records(tmp_path / "split"), spaces="shared")
    assert (tmp_path / "listed" / "train.rec").read_bytes() == (source / "train.rec").read_bytes()


@st.composite
def data_sets(draw: st.DrawFn) -> list[Images]:
    payloads = st.binary(min_size=1, max_size=20) | st.just(MAGIC_BYTES * 2)
    identities = st.integers(0, 6) | st.sampled_from([2**24 - 1, 2**24, 2**24 + 1])
    return draw(st.lists(st.lists(st.tuples(identities, payloads), min_size=1, max_size=12), min_size=1, max_size=3))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sets=data_sets(), shared=st.booleans(), order=st.sampled_from(["input", "shuffle", "sort"]), seed=st.integers(0, 9),
    minimum=st.integers(1, 3), relabel=st.booleans(), per_shard=st.integers(1, 9), plain=st.booleans(),
)  # fmt: skip
def test_the_images_stay_the_same_multiset(
    sets: list[Images], shared: bool, order: str, seed: int, minimum: int, relabel: bool, per_shard: int, plain: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = [write(folder / str(number), images) for number, images in enumerate(sets)]
        offsets = [0]
        for images in sets:
            offsets.append(0 if shared else offsets[-1] + max(identity for identity, _ in images) + 1)
        everything = [
            (who + offset, jpeg) for images, offset in zip(sets, offsets, strict=False) for who, jpeg in images
        ]
        sizes = Counter(who for who, _ in everything)
        expected = [(who, jpeg) for who, jpeg in everything if sizes[who] >= minimum]
        options = ReshardOptions(
            spaces="shared" if shared else "separate", min_images=minimum, relabel=relabel, plain=plain, seed=seed,
            shuffle=order == "shuffle", sort=order == "sort", cut=ShardCut(max_images=per_shard),
        )  # fmt: skip
        if not expected:
            with pytest.raises(DataError, match="is left: ask for fewer images"):
                reshard(inputs, folder / "out", options)
            assert not (folder / "out").exists()
            return
        reshard(inputs, folder / "out", options)
        if relabel:
            numbers = {who: number for number, who in enumerate(sorted({who for who, _ in expected}))}
            expected = [(numbers[who], jpeg) for who, jpeg in expected]
        found = read(folder / "out")
        assert Counter(found) == Counter(expected)
        if order == "input":
            assert found == expected
        if order == "sort":
            assert found == sorted(expected, key=lambda image: image[0])
        if (folder / "out" / "relabel.tsv").exists():
            # What became of every identity is itself a relabel file with the same result.
            again = ReshardOptions(spaces=options.spaces, relabel_file=folder / "out" / "relabel.tsv")
            reshard(inputs, folder / "again", again)
            assert Counter(read(folder / "again")) == Counter(expected)


def test_the_shuffle_is_one_of_all_images(tmp_path: Path) -> None:
    source = write(tmp_path / "in", [(number, b"%d" % number) for number in range(2000)])
    resharded(tmp_path / "a", source, shuffle=True, seed=1, cut=ShardCut(shards=7))
    resharded(tmp_path / "b", source, shuffle=True, seed=1)
    resharded(tmp_path / "c", source, shuffle=True, seed=2)
    a, b, c = ([who for who, _ in read(tmp_path / name)] for name in "abc")
    assert a == b != c
    assert sorted(a) == sorted(c) == list(range(2000))
    # No image is likelier to stay near its place: displacements as of a uniform permutation, whose mean is n / 3.
    for order in (a, c):
        assert abs(np.abs(np.array(order) - np.arange(2000)).mean() - 2000 / 3) < 60


def test_relabel_file_then_filter_then_numbers(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "clean.tsv"
    file.write_text("1\t4\n9\tdrop\nimage\t0\t3\nimage\t14\t0\nimage\t13\tdrop\n")
    resharded(tmp_path / "out", source, relabel_file=file)
    expected = [(3, b"0/0"), (0, b"0/1"), (0, b"0/2"), (4, b"1/0"), *IMAGES[4:11], (0, b"9/3")]
    assert read(tmp_path / "out") == expected
    assert (tmp_path / "out" / "property").read_text() == "10,8,8\n"
    resharded(tmp_path / "few", source, relabel_file=file, min_images=4, relabel=True)
    assert read(tmp_path / "few") == [(0, b"0/0"), *((0, jpeg) for who, jpeg in IMAGES if who == 3)]
    assert (tmp_path / "few" / "property").read_text() == "1,8,8\n"
    assert (tmp_path / "few" / "identities.tsv").read_text() == "0\tcid\n"
    lines = (tmp_path / "few" / "relabel.tsv").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "0\tdrop\ttoo few images", "1\tdrop\ttoo few images", "3\t0", "4\tdrop\ttoo few images",
        "9\tdrop\trelabel file", "image\t0\t0", "image\t13\tdrop\trelabel file", "image\t14\tdrop\ttoo few images",
    ]  # fmt: skip


def test_names_of_merged_identities(source: Path, tmp_path: Path) -> None:
    (tmp_path / "merge.tsv").write_text("0\t9\n1\t20\n")
    resharded(tmp_path / "out", source, relabel_file=tmp_path / "merge.tsv")
    assert (tmp_path / "out" / "identities.tsv").read_text() == "3\tcid\n4\tdan\n9\teve\n20\tbob\n"
    assert (tmp_path / "out" / "property").read_text() == "21,8,8\n"


def test_several_inputs(source: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", [(0, b"x"), (2, b"y")], {0: "ann", 2: "zoë"})
    with pytest.raises(DataError, match=r"0 and 10 are both named 'ann'.*merge with identities named"):
        resharded(tmp_path / "never", source, other)
    (other / "identities.tsv").write_text("2\tzoë\n0\tann of other\n", "utf-8")
    resharded(tmp_path / "separate", source, other)
    assert read(tmp_path / "separate") == [*IMAGES, (10, b"x"), (12, b"y")]
    names = (tmp_path / "separate" / "identities.tsv").read_text("utf-8")
    assert names == "0\tann\n1\tbob\n3\tcid\n4\tdan\n9\teve\n10\tann of other\n12\tzoë\n"
    assert (tmp_path / "separate" / "property").read_text() == "13,8,8\n"
    assert not (tmp_path / "separate" / "relabel.tsv").exists(), "no number changed within the merged space"
    (other / "identities.tsv").write_text("0\tann\n2\tzoë\n", "utf-8")
    resharded(tmp_path / "shared", source, other, spaces="shared", sort=True)
    assert read(tmp_path / "shared") == [*IMAGES[:3], (0, b"x"), IMAGES[3], (2, b"y"), *IMAGES[4:]]
    assert (tmp_path / "shared" / "property").read_text() == "10,8,8\n"
    assert RecordReader(tmp_path / "shared" / "train.rec").shards[0].num_range_records == 6
    clash = write(tmp_path / "clash", [(3, b"x")], {3: "carl"})
    with pytest.raises(DataError, match="identity 3 is named twice, 'cid' and 'carl'"):
        resharded(tmp_path / "never", source, clash, spaces="shared")
    assert not (tmp_path / "never").exists()


def test_inputs_by_name(source: Path, tmp_path: Path) -> None:
    """Known people keep the number of the first input, new ones are numbered on, in the order of their inputs."""
    second = write(tmp_path / "second", [(0, b"x"), (1, b"y"), (1, b"z")], {0: "flo ✿", 1: "bob"})
    third = write(tmp_path / "third", [(2, b"p"), (5, b"q")])  # goes by numbers
    resharded(tmp_path / "out", source, second, third, spaces="named")
    assert read(tmp_path / "out") == [*IMAGES, (10, b"x"), (1, b"y"), (1, b"z"), (11, b"p"), (12, b"q")]
    lines = (tmp_path / "out" / "identities.tsv").read_text("utf-8").splitlines()
    assert lines == ["0\tann", "1\tbob", "3\tcid", "4\tdan", "9\teve", "10\tflo ✿", "11\t2", "12\t5"]
    with pytest.raises(DataError, match=r"neither has names.*write identities\.tsv"):
        resharded(tmp_path / "never", third, write(tmp_path / "fourth", [(0, b"x")]), spaces="named")


def test_numbers_become_names_where_they_change(source: Path, tmp_path: Path) -> None:
    (source / "identities.tsv").unlink()
    resharded(tmp_path / "same", source, shuffle=True)
    assert not (tmp_path / "same" / "identities.tsv").exists()
    resharded(tmp_path / "fewer", source, min_images=3)
    assert not (tmp_path / "fewer" / "identities.tsv").exists(), "who is left keeps the number"
    (tmp_path / "move.tsv").write_text("image\t0\t9\nimage\t3\t70\n")
    resharded(tmp_path / "out", source, relabel_file=tmp_path / "move.tsv", min_images=1, relabel=True)
    assert (tmp_path / "out" / "identities.tsv").read_text() == "0\t0\n1\t3\n2\t4\n3\t9\n4\t70\n"


# Held-out identities.


def faces(counts: list[int]) -> Images:
    return [(who, b"%d/%d" % (who, number)) for who, count in enumerate(counts) for number in range(count)]


def test_held_out_identities_become_pairs(tmp_path: Path) -> None:
    source = write(tmp_path / "in", faces([1, 6, 2, 9, 1, 3, 4, 2, 5, 8, 1, 2]))
    result = resharded(tmp_path / "out", source, hold_out=5, pairs=40, seed=3)
    pairs, kept = read_pairs(tmp_path / "out" / "verification.bin"), read(tmp_path / "out")
    who = [int(jpeg.split(b"/")[0]) for jpeg in pairs.jpegs]
    held = set(who)
    assert result.held_out == len(held) == 5
    assert held.isdisjoint(identity for identity, _ in kept)
    assert Counter(kept) == Counter(image for image in read(source) if image[0] not in held), "nobody else leaves"
    assert pairs.same.reshape(10, 4).tolist() == [[True, True, False, False]] * 10
    assert [one == other for one, other in zip(who[::2], who[1::2], strict=True)] == pairs.same.tolist()
    drawn = [frozenset(pair) for pair in zip(pairs.jpegs[::2], pairs.jpegs[1::2], strict=True)]
    assert len(set(drawn)) == len(drawn) == 40
    assert all(len(pair) == 2 for pair in drawn), "no image is paired with itself"
    resharded(tmp_path / "again", source, hold_out=5, pairs=40, seed=3)
    resharded(tmp_path / "other", source, hold_out=5, pairs=40, seed=4)
    bins = [(tmp_path / name / "verification.bin").read_bytes() for name in ("out", "again", "other")]
    assert bins[0] == bins[1] != bins[2]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=3, max_size=12), held=st.integers(2, 8), twenties=st.integers(1, 4),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_pairs_of_any_data_set(counts: list[int], held: int, twenties: int, seed: int) -> None:
    identities = np.array([who for who, _ in faces(counts)])
    pairs = 20 * twenties
    try:
        result = hold_out(identities, held, pairs, seed)
    except DataError as error:
        several = sum(count >= 2 for count in counts)
        chosen_least = sum(sorted(c * (c - 1) // 2 for c in counts if c >= 2)[:held])
        sizes = sorted(c for c in counts if c >= 2)[:held]
        crossing = (sum(sizes) ** 2 - sum(c * c for c in sizes)) // 2
        assert several < held or len(counts) == held or min(chosen_least, crossing) < pairs // 2, str(error)
        return
    assert len(result.identities) == held
    one, other = identities[result.positions.reshape(pairs, 2)].T
    assert ((one == other) == result.same).all()
    assert result.same.sum() == pairs // 2
    assert set(identities[result.positions]) <= set(result.identities.tolist())
    unordered = {tuple(sorted(pair)) for pair in result.positions.reshape(pairs, 2).tolist()}
    assert len(unordered) == pairs
    # Evenly: an identity gets more same pairs than another only where the other has no more of them.
    got = Counter(one[result.same].tolist())
    for first in result.identities.tolist():
        for second in result.identities.tolist():
            size = counts[second]
            if got[first] > got[second] + 1:
                assert got[second] == size * (size - 1) // 2


def test_what_cannot_be_held_out(tmp_path: Path) -> None:
    source = write(tmp_path / "in", faces([2, 2, 3, 1]))
    for options, message in (
        ({"hold_out": 1, "pairs": 20}, "hold out at least 2"),
        ({"hold_out": 2, "pairs": 30}, "multiple of 20 pairs"),
        ({"hold_out": 2, "pairs": 0}, "multiple of 20 pairs"),
        ({"hold_out": 4, "pairs": 20}, "3 identities have two images or more"),
        ({"hold_out": 2, "pairs": 20}, "hold out more identities or ask for fewer pairs"),
        ({"hold_out": 3, "pairs": 20, "min_images": 2}, "leaves none to train on"),
        ({"shuffle": True, "sort": True}, "choose one"),
        ({"min_images": 0}, "give 1 or more"),
        ({"min_images": 4}, "no image of .* is left"),
        ({"cut": ShardCut(shards=9)}, "ask for at most 8"),
        ({"relabel_file": tmp_path / "absent"}, "cannot open"),
    ):
        with pytest.raises(DataError, match=message):
            resharded(tmp_path / "out", source, **options)
        assert not (tmp_path / "out").exists()


def test_a_damaged_input_leaves_nothing(source: Path, tmp_path: Path) -> None:
    data = bytearray((source / "train.rec").read_bytes())
    offset = int((source / "train.idx").read_text().splitlines()[9].split("\t")[1])
    data[offset : offset + 4] = b"oops"
    (source / "train.rec").write_bytes(data)
    with pytest.raises(DataError, match="record 9"):
        resharded(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()
