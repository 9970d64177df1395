"""Malformed record files, indexes and property files: a typed error or a result; no crash, hang or large allocation."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from damaged_images import picture
from hostile_files import bounded, changed, changed_index, run_within_bounds
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import DataError, RecordReader, RecordWriter, check_identities, verify
from data_pipeline.errors import BadRecordError
from data_pipeline.index import rebuild_index
from data_pipeline.record import pack_header
from data_pipeline.recordio import MAGIC_BYTES, frame
from data_pipeline.summary import describe, summarize

pytestmark = pytest.mark.unit


def _native(images: list[tuple[int, bytes]]) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.rec"
        with RecordWriter(path) as writer:
            for identity, jpeg in images:
                writer.write(identity, jpeg)
        return path.read_bytes(), path.with_suffix(".idx").read_bytes()


def _plain(contents: list[bytes]) -> tuple[bytes, bytes]:
    offsets = [sum(len(frame(each)) for each in contents[:number]) for number in range(len(contents))]
    index = "".join(f"{key}\t{offset}\n" for key, offset in enumerate(offsets))
    return b"".join(map(frame, contents)), index.encode()


SMALL = [picture(number, 16, 16) for number in range(3)]
FILES = [
    _native([(0, SMALL[0]), (0, SMALL[1]), (1, SMALL[2]), (3, b"not an image")]),
    _native([(2**40, SMALL[0]), (7, picture(1, 16, 16, kind="PNG"))]),
    _plain([pack_header((5.0,), 0) + SMALL[0], pack_header((1.0, 0.5, 2.0), 1) + SMALL[1]]),
    _plain([pack_header((float(n),), n) + MAGIC_BYTES * 3 + bytes(n) + MAGIC_BYTES for n in range(4)]),
]


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[bytes, bytes, bytes | None]:
    records, index = draw(st.sampled_from(FILES))
    if draw(st.integers(0, 3)):
        records = draw(changed([records]))
    if draw(st.integers(0, 3)) == 0:
        index = draw(st.one_of(changed_index(index), changed([index])))
    written = st.sampled_from([b"4,16,16", b"9" * 200 + b",1,1", b"0,0,0"])
    properties = draw(st.one_of(st.none(), written, st.binary(max_size=40)))
    return records, index, properties


def read_everything(path: Path) -> None:
    with RecordReader(path) as reader:
        assert len(reader) > 0
        for position in range(len(reader)):
            try:
                record = reader[position]
            except DataError as error:
                assert "\n" not in str(error)
            else:
                assert record.jpeg
                assert 0 <= record.identity < 2**45
        check_identities(reader, reader.num_identities)


def read_what_can_be_read(path: Path) -> None:
    with RecordReader(path, skip_bad=True) as reader:
        assert (reader.identities >= -1).all()
        for position, identity in enumerate(reader.identities.tolist()):
            try:
                assert reader[position].identity == identity
            except DataError as error:
                assert isinstance(error, BadRecordError)


def summarize_everything(path: Path) -> None:
    with RecordReader(path) as reader:
        assert describe(summarize(reader))


def rebuild_then_read(path: Path) -> None:
    rebuilt = rebuild_index(path)
    assert rebuilt.records > 0
    read_everything(path)


def verify_everything(path: Path) -> None:
    report = verify.verify([path])
    assert report.num_bad == len(report.bad)


ACTIONS: list[Callable[[Path], None]] = [
    read_everything,
    read_what_can_be_read,
    summarize_everything,
    verify_everything,
    rebuild_then_read,
]


@pytest.fixture(scope="module", autouse=True)
def everything_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a first use imports does not count as allocated for a file."""
    for number, (records, index) in enumerate(FILES):
        path = tmp_path_factory.mktemp("valid") / f"{number}.rec"
        path.write_bytes(records)
        path.with_suffix(".idx").write_bytes(index)
        for action in ACTIONS:
            action(path)


@bounded(400)
@given(data_sets())
def test_any_record_file_is_read_or_refused(data_set: tuple[bytes, bytes, bytes | None]) -> None:
    records, index, properties = data_set
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.rec"
        path.write_bytes(records)
        path.with_suffix(".idx").write_bytes(index)
        if properties is not None:
            path.with_name("property").write_bytes(properties)
        for action in ACTIONS:
            # Only verify decodes: up to 512 pixels a byte, three bytes each, in some copies.
            per_byte, floor = (9 * 512, 1 << 20) if action is verify_everything else (64, 1 << 19)
            refused = partial(refused_at_most, action, path)
            run_within_bounds(refused, len(records) + len(index), per_byte=per_byte, floor=floor)


def refused_at_most(action: Callable[[Path], None], path: Path) -> None:
    try:
        action(path)
    except DataError as error:
        assert "\n" not in str(error)


@bounded(150)
@given(st.sampled_from(FILES).flatmap(lambda file: changed([file[0]])))
def test_verify_finds_what_the_reader_refuses(records: bytes) -> None:
    """Whatever a reader cannot read although the index names it, verify reports."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.rec"
        path.write_bytes(records)
        try:
            rebuild_index(path)
            reader = RecordReader(path)
        except DataError:
            return
        with reader:
            refused = []
            for position in range(len(reader)):
                try:
                    _ = reader[position].identity
                except DataError:
                    refused.append(int(reader.shards[0].offsets[position]))
        found = {bad.offset for bad in verify.verify([path]).bad}
        assert set(refused) <= found
