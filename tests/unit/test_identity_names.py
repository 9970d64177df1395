"""identities.tsv: what it accepts, what it refuses in one line, and who is the same person in two of them."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import DataError, identity_names
from data_pipeline.identity_names import IdentityNames, data_set_names, join_names, read_names

pytestmark = pytest.mark.unit

NAMES = ["ann", " bob and\u2028spaces ", "Zoë", "山田 太郎", "\x85\x0b#", "-", "17", "n\u0303", "ñ"]


def write(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "identities.tsv"
    path.write_bytes(content)
    return path


def read(tmp_path: Path, content: bytes, num_identities: int = 100) -> IdentityNames:
    names = read_names(write(tmp_path, content), num_identities=num_identities)
    assert names is not None
    return names


def test_any_text_comes_back(tmp_path: Path) -> None:
    content = "".join(f"{3 * number}\t{name}\n" for number, name in enumerate(NAMES)).encode()
    names = read(tmp_path, content)
    assert [names.name(place) for place in range(len(names))] == NAMES
    assert (names.name_of(6), names.name_of(7), names.name_of(10**9)) == ("Zoë", None, None)
    names.write(tmp_path / "again.tsv")
    assert (tmp_path / "again.tsv").read_bytes() == content


def test_order_line_ends_and_empty_lines_do_not_count(tmp_path: Path) -> None:
    tidy = read(tmp_path, b"0\tann\n2\tbob\n70\tcid\n")
    other = read(tmp_path, "\ufeff70\tcid\r\n\r\n2\tbob\n\n0\tann".encode())
    assert other.ids.tolist() == [0, 2, 70]
    assert tidy.sha256 == other.sha256
    assert tidy.sha256 != read(tmp_path, b"0\tann\n2\tbob\n71\tcid\n").sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0\tann\n0\tbob\n", "identity 0 is named twice, 'ann' and 'bob'"),
        (b"0\tann\n0\tann\n", "identity 0 is named twice"),
        (b"5\tann\n0\tann\n", "identities 0 and 5 are both named 'ann'"),
        (b"0\tann\n1\tb\xffb\n", "line 2 .* it is not UTF-8 text"),
        (b"0\tann\n1\tb\xed\xa0\x80b\n", "line 2 .* it is not UTF-8 text"),
        (b"0\tann\n1\n", "line 2 .* give a whole number, one tab and a name"),
        (b"0\t\n", "line 1 .* give a whole number, one tab and a name"),
        (b"\tann\n", "line 1 .* give a whole number"),
        (b"0\ta\tb\n", "line 1 .* a name without tabs"),
        (b"0\ta\rb\n", "line 1"),
        (b"-1\tann\n", "line 1"),
        (b"1_0\tann\n", "line 1"),
        ("\u0661\tann\n".encode(), "line 1"),
        (b"0\tann\n100\tbob\n", "line 2 names identity 100, the data set has 100 from 0 on"),
        (b"9" * 30 + b"\tann\n", "line 1"),
        (b"9" * 19 + b"\tann\n", "the data set has 100"),
        (b"0\t" + b"x" * 1025 + b"\n", "names have at most 1024 bytes"),
        (b"x" * 10**6, "names have at most 1024 bytes"),
        (b"\0" * 10**5, "line 1"),
        (b"", "holds no names"),
        (b"\n\n", "holds no names"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "identities.tsv") in str(caught.value)


def test_a_file_of_more_lines_than_identities_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity_names, "_CHUNK", 100)
    path = write(tmp_path, b"7\tsome name or other\n" * 200_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more lines than the data set has identities"):
            read_names(path, num_identities=1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_memory_is_some_bytes_for_each(tmp_path: Path) -> None:
    count = 50_000
    path = write(tmp_path, b"".join(b"%d\tperson %08d\n" % (number, number) for number in range(count)))
    tracemalloc.start()
    try:
        names = read_names(path, num_identities=count)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert names is not None and len(names) == count
    assert held < 48 * count
    assert peak < 120 * count + (12 << 20), "beside lines handled together"


def test_the_same_name_is_the_same_person(tmp_path: Path) -> None:
    one = IdentityNames.of([0, 1, 2, 9], [b"ann", "zoë".encode(), b"cid", b"17"], "one")
    other = IdentityNames.of([3, 4, 17], [b"cid", b"Ann", "zoë".encode()], "other")
    assert one.places_in(other).tolist() == [-1, 2, 0, -1]
    assert one.places_in(IdentityNames.numbers([0, 17], "numbers")).tolist() == [-1, -1, -1, 1]
    picked = one.select(np.array([2, 0]), np.array([5, 8]))
    assert [picked.name_of(5), picked.name_of(8), picked.name_of(0)] == ["cid", "ann", None]


def test_equal_keys_do_not_make_people_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are compared themselves, however their hashes collide."""
    monkeypatch.setattr(identity_names, "hash", lambda name: len(name) % 2, raising=False)
    names = [b"%d" % number for number in range(30)]
    one = IdentityNames.of(range(30), names, "one")
    other = IdentityNames.of(range(15), names[::-2], "other")
    assert one.places_in(other).tolist() == [(29 - n) // 2 if n % 2 else -1 for n in range(30)]
    with pytest.raises(DataError, match="identities 2 and 30 are both named '2'"):
        IdentityNames.of(range(31), [*names, b"2"], "one")


def test_names_of_a_data_set_in_several_folders(tmp_path: Path) -> None:
    files = [tmp_path / "a" / "0.rec", tmp_path / "a" / "1.rec", tmp_path / "b" / "train.rec"]
    identities = np.array([0, 0, 1, 3, -1])
    assert data_set_names(files, identities, 4) is None
    write(tmp_path / "a", b"0\tann\n1\tbob\n")
    with pytest.raises(DataError, match="identity 3 has images but no line"):
        data_set_names(files, identities, 4)
    write(tmp_path / "b", b"1\tbob\n3\tdan\n")
    names = data_set_names(files, identities, 4)
    assert names is not None
    assert list(names.lines()) == [b"0\tann\n1\tbob\n3\tdan\n"], "identity 2 has neither image nor name"
    write(tmp_path / "b", b"1\tbert\n3\tdan\n")
    with pytest.raises(DataError, match="identity 1 is named twice, 'bob' and 'bert'"):
        data_set_names(files, identities, 4)


def test_joined_spaces() -> None:
    one, other = IdentityNames.of([0, 2], [b"a", b"b"], "one"), IdentityNames.of([1], [b"c"], "other")
    assert list(join_names([(one, 5), (other, 0)], "both").lines()) == [b"1\tc\n5\ta\n7\tb\n"]
