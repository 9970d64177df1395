"""Verification sets: every pickle dialect of real files is read, and no crafted one runs code or eats memory."""

import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.pairs import Pairs, read_pairs, write_pairs

pytestmark = pytest.mark.unit

# The bytes that distinguish the dialects: NUL, newline, quote, backslash, high bytes, and lengths around 256.
IMAGES = [bytes([255, 216, i]) + b"\x00\n'\\\"\xe9" * (i * 9) + b"\r\x1a" for i in range(10)]
SAME = [True, False, False, True, True]


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "set.bin"
    path.write_bytes(content)
    return path


def _check(pairs: Pairs) -> None:
    assert pairs.jpegs == IMAGES
    assert pairs.same.dtype == np.bool_
    assert pairs.same.tolist() == SAME
    assert len(pairs) == 5


def _refused(folder: Path, content: bytes) -> str:
    path = _file(folder, content)
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "a verification set is a pickle of" in message
    return message


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("outside", [tuple, list])
def test_reads_bytes_of_every_protocol(tmp_path: Path, protocol: int, outside: type) -> None:
    _check(read_pairs(_file(tmp_path, pickle.dumps(outside((IMAGES, SAME)), protocol))))


@pytest.mark.parametrize("protocol", range(6))
def test_reads_empty_bytes_only_to_refuse_them(tmp_path: Path, protocol: int) -> None:
    assert "image 1 of no bytes" in _refused(tmp_path, pickle.dumps(([b"x", b""], [True]), protocol))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (1, -1)])
def test_reads_numpy_images_and_flags(tmp_path: Path, protocol: int, shape: tuple[int, ...]) -> None:
    images = [np.frombuffer(image, np.uint8).reshape(shape).copy() for image in IMAGES]
    flags = [np.bool_(flag) for flag in SAME]
    _check(read_pairs(_file(tmp_path, pickle.dumps((images, flags), protocol))))
    _check(read_pairs(_file(tmp_path, pickle.dumps((tuple(images), np.array(SAME)), protocol))))


@pytest.mark.parametrize("protocol", [4, 5])
def test_reads_bytearrays(tmp_path: Path, protocol: int) -> None:
    _check(read_pairs(_file(tmp_path, pickle.dumps(([bytearray(i) for i in IMAGES], SAME), protocol))))


def _python2_text(image: bytes) -> bytes:
    return b"S" + repr(image).encode()[1:] + b"\n"


def test_reads_python2_protocol_0(tmp_path: Path) -> None:
    strings = b"".join(_python2_text(image) + b"p%d\na" % (5 + i) for i, image in enumerate(IMAGES))
    flags = b"".join(b"I%02d\na" % flag for flag in SAME)
    _check(read_pairs(_file(tmp_path, b"((lp0\n" + strings + b"(lp1\n" + flags + b"tp2\n.")))


def test_reads_python2_protocol_2(tmp_path: Path) -> None:
    def string(index: int, image: bytes) -> bytes:
        head = b"U" + bytes([len(image)]) if len(image) < 50 else b"T" + struct.pack("<i", len(image))
        return head + image + (b"q" + bytes([index]) if index % 2 else b"r" + struct.pack("<I", index))

    strings = b"".join(string(5 + i, image) for i, image in enumerate(IMAGES))
    flags = b"".join(b"\x88" if flag else b"\x89" for flag in SAME)
    _check(read_pairs(_file(tmp_path, b"\x80\x02]q\x01(" + strings + b"e]q\x02(" + flags + b"e\x86q\x03.")))


def test_reads_flags_stored_as_integers_and_an_image_stored_once(tmp_path: Path) -> None:
    pairs = read_pairs(_file(tmp_path, pickle.dumps(([IMAGES[3]] * 4, [1, 0]), 4)))
    assert pairs.jpegs == [IMAGES[3]] * 4
    assert pairs.same.tolist() == [True, False]


def test_what_we_write_plain_pickle_loads(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    write_pairs(path, IMAGES, np.array(SAME))
    images, flags = pickle.loads(path.read_bytes())
    assert images == IMAGES
    assert flags == SAME
    assert all(type(flag) is bool for flag in flags)
    _check(read_pairs(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.bin"]


@pytest.mark.parametrize(("images", "flags"), [(IMAGES[:9], SAME), (IMAGES, SAME[:4]), ([], [])])
def test_wrong_counts_are_not_written(tmp_path: Path, images: list[bytes], flags: list[bool]) -> None:
    with pytest.raises(DataError, match="give 2 images for each"):
        write_pairs(tmp_path / "out.bin", images, flags)
    assert not list(tmp_path.iterdir())


def test_unwritable_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        write_pairs(tmp_path / "missing" / "out.bin", IMAGES, SAME)


# Files that are no verification set.


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ((IMAGES[:9], SAME), "9 images for 5 flags instead of 10"),
        ((IMAGES, SAME[:4]), "10 images for 4 flags instead of 8"),
        (([], []), "no pairs"),
        (IMAGES, "not a pair of lists"),
        ((IMAGES, None), "not a list of images"),
        ((b"ab", [True]), "not a list of images"),
        ((["a", "b"], [True]), "image 0 that is no byte string"),
        (([b"a", 7], [True]), "image 1 that is no byte string"),
        (([b"a", b"b"], [2]), "flag 0 that is neither"),
        (([b"a", b"b"], ["yes"]), "flag 0 that is neither"),
        (([b"a", b"b"], [0.5]), "opcode BINFLOAT is not allowed"),
        (([b"a", b"b"], {}), "opcode EMPTY_DICT is not allowed"),
        (([b"a", np.zeros((4, 5, 3), np.uint8)], [True]), "raw pixels [4, 5, 3] as image 1"),
        (([b"a", np.zeros(3, np.int32)], [True]), "numpy i4"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object, what: str) -> None:
    assert what in _refused(tmp_path, pickle.dumps(content, 4))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 JPEG", b"<html>", b"hello\n", b"PK\x03\x04", b"."])
def test_no_pickle(tmp_path: Path, content: bytes) -> None:
    _refused(tmp_path, content)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.bin", tmp_path):
        with pytest.raises(DataError, match="no such verification set"):
            read_pairs(path)


@pytest.mark.parametrize("protocol", range(6))
def test_cut_anywhere(tmp_path: Path, protocol: int) -> None:
    whole = pickle.dumps((IMAGES, SAME), protocol)
    for end in range(0, len(whole), 13):
        _refused(tmp_path, whole[:end])


def test_any_flipped_byte_gives_pairs_or_a_data_error(tmp_path: Path) -> None:
    images = [np.frombuffer(IMAGES[1], np.uint8).copy(), IMAGES[2]]
    for protocol in range(6):
        whole = pickle.dumps((images, [np.bool_(True)]), protocol)
        for position in range(len(whole)):
            for change in (1, 128):
                broken = bytearray(whole)
                broken[position] ^= change
                try:
                    read_pairs(_file(tmp_path, bytes(broken)))
                except DataError as error:
                    assert "\n" not in str(error)


# Crafted pickles. Each one, given to pickle.loads, would create the file `ran`.


class _Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _crafted(command: str) -> dict[str, bytes]:
    shell, argument = b"cposix\nsystem\n", _text(command)
    return {
        "GLOBAL and REDUCE": shell + argument + b"\x85R.",
        "STACK_GLOBAL": _text("os") + _text("system") + b"\x93" + argument + b"\x85R.",
        "INST": b"(" + argument + b"iposix\nsystem\n.",
        "OBJ": b"(" + shell + argument + b"o.",
        "NEWOBJ": b"csubprocess\nPopen\n" + _text(command) + b"\x85\x81.",
        "NEWOBJ_EX": b"csubprocess\nPopen\n" + argument + b"\x85}\x92.",
        "BUILD": b"cbuiltins\ndict\n)R}X\x01\x00\x00\x00aK\x01sb.",
        "inside the images": b"(](" + shell + argument + b"\x85Re](\x88et.",
        "eval through an allowed module": b"cnumpy\nload\n" + argument + b"\x85R.",
        "a dotted name in an allowed module": _text("numpy") + _text("dtype.__class__") + b"\x93" + b"K\x00\x85R.",
        "reduce of an allowed name's result": b"cnumpy\ndtype\n" + _text("u1") + b"\x85R" + argument + b"\x85R.",
        "another codec": b"c_codecs\nencode\n" + argument + _text("zip") + b"\x86R.",
        "bytes of a number": b"c__builtin__\nbytes\nJ\x00\x00\x00\x7f\x85R.",
    }


@pytest.mark.parametrize("kind", _crafted(""))
def test_crafted_pickle_runs_nothing(tmp_path: Path, kind: str) -> None:
    ran = tmp_path / "ran"
    _refused(tmp_path, b"\x80\x04" + _crafted(f"touch {ran}")[kind])
    assert not ran.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_os_system_by_reduce(tmp_path: Path, protocol: int) -> None:
    ran = tmp_path / "ran"
    message = _refused(tmp_path, pickle.dumps(([_Runs(f"touch {ran}"), b"x"], [True]), protocol))
    assert not ran.exists()
    assert "posix.system" in message


def test_the_crafted_pickles_are_live(tmp_path: Path) -> None:
    """The attack is real: plain pickle does run it (else the tests above could not fail)."""
    ran = tmp_path / "ran"
    crafted = _crafted(f"touch {ran}")["GLOBAL and REDUCE"]
    program = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    subprocess.run([sys.executable, "-c", program], input=crafted, timeout=60, check=True)
    assert ran.exists()


@pytest.mark.parametrize(
    "content",
    [b"\x82\x01.", b"\x83\x01\x00.", b"\x84\x01\x00\x00\x00.", b"Pname\n.", b"K\x01Q.", b"\x97.", b"N2.", b"N0N."],
    ids=["EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "DUP", "POP"],
)
def test_forbidden_opcodes_are_named(tmp_path: Path, content: bytes, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    assert f"opcode {name} is not allowed" in _refused(tmp_path, b"\x80\x05" + content)


def test_a_hostile_name_stays_on_one_line(tmp_path: Path) -> None:
    message = _refused(tmp_path, _text("o\ns\x1b[2J" + "x" * 500) + _text("sys\r\ntem") + b"\x93.")
    assert message.isprintable()
    assert len(message) < len(str(tmp_path)) + 400


_BOMBS = {
    "memo index": b"]r\xff\xff\xff\xff.",
    "memo index in text": b"]p99999999999999999\n.",
    "length of 8 bytes": b"\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "length of 4 bytes": b"B\xff\xff\xff\xffx.",
    "bytearray": b"\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "text": b"\x8d" + struct.pack("<Q", (1 << 63) - 1) + b"x.",
    "negative length": b"T\xff\xff\xff\xffx.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b"N.",
    "decimal": b"L" + b"9" * 100_000 + b"L\n.",
    "nested lists": b"]" * 300_000 + b"a" * 299_999 + b".",
    "nested tuples": b")" + b"\x85" * 300_000 + b".",
    "marks": b"(" * 600_000 + b".",
    "empty lists": b"](" + b"]" * 600_000 + b"e.",
    "one text encoded again and again": b"".join(
        [
            *(b"c_codecs\nencode\nq\x00", _text("a" * 20_000), _text("latin1"), b"\x86q\x01R"),
            *([b"h\x00h\x01R"] * 5_000),
            b".",
        ]
    ),
    "array larger than its bytes": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(L4611686018427387904L\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntRI00\nS'x'\ntb."
    ),
}


@pytest.mark.parametrize("kind", _BOMBS)
def test_bombs_do_not_go_off(tmp_path: Path, kind: str) -> None:
    content = _BOMBS[kind]
    tracemalloc.start()
    try:
        _refused(tmp_path, content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * len(content) + (4 << 20)


def test_a_list_within_itself(tmp_path: Path) -> None:
    assert "not a pair of lists" in _refused(tmp_path, b"]q\x00h\x00a.")
