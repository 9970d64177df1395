"""Valid files turned into malformed ones, for hypothesis; and the bounds within which they must be refused.

``PFC_FUZZ_EXAMPLES=100000 pytest tests/unit/test_fuzz_*.py`` runs for long, with other examples each time.
"""

import os
import time
import tracemalloc
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

_LONG = os.environ.get("PFC_FUZZ_EXAMPLES")
SECONDS = 20.0  # for one example; a hang, not a slow machine

NUMBERS = [0, 1, 2, 3, 4, 7, 8, 20, 24, 0xCED7230A, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FC00000, 0x4B800000,
           *(flag << 29 | length for flag in range(8) for length in (0, 4, 24, 1 << 20, (1 << 29) - 1))]  # fmt: skip
DECIMALS = [b"0", b"-1", b"4", b"3", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"1" * 40,
            b"nan", b"1e9", b"0x10", b"", b"\xff\xfe", b"4294967296", b"99999999999996"]  # fmt: skip


def bounded(examples: int) -> settings:
    """``examples`` examples, the same in every run; or as many as PFC_FUZZ_EXAMPLES says, new ones each time."""
    return settings(
        max_examples=int(_LONG) if _LONG else examples,
        derandomize=_LONG is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def run_within_bounds(
    action: Callable[[], object], file_bytes: int, *, per_byte: int = 64, floor: int = 1 << 19
) -> None:
    """``action`` must end soon and must not allocate more than ``floor`` bytes and some for each byte of the file.

    What the interpreter or hypothesis allocates once (imports, sources of warnings) is gone at a second try.
    """
    for last_try in (False, True):
        tracemalloc.start()
        began = time.monotonic()
        try:
            action()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert time.monotonic() - began < SECONDS
        if peak <= floor + per_byte * file_bytes:
            return
        assert not last_try, f"{peak} bytes allocated for a file of {file_bytes}"


@st.composite
def _changed(draw: st.DrawFn, original: bytes) -> bytes:
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1))
        match draw(st.sampled_from(["flip", "byte", "word", "cut", "delete", "insert", "splice", "zero"])):
            case "flip":
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "byte":
                content[at] = draw(st.integers(0, 255))
            case "word":
                at = at // 4 * 4
                content[at : at + 4] = draw(st.sampled_from(NUMBERS)).to_bytes(4, "little")
            case "cut":
                del content[at:]
            case "delete":
                del content[at : at + draw(st.sampled_from([1, 4, 24, 100, 1000]))]
            case "insert":
                content[at:at] = draw(st.binary(min_size=1, max_size=40))
            case "splice":
                source = draw(st.integers(0, len(content) - 1))
                length = draw(st.sampled_from([4, 8, 32, 500]))
                content[at : at + length] = content[source : source + length]
            case "zero":
                content[at : at + 64] = bytes(len(content[at : at + 64]))
    return bytes(content)


def changed(originals: list[bytes]) -> SearchStrategy[bytes]:
    """One of the files with some bytes changed, or bytes of no such kind at all."""
    return st.one_of(st.sampled_from(originals).flatmap(_changed), st.binary(max_size=300))


@st.composite
def changed_index(draw: st.DrawFn, index: bytes) -> bytes:
    """An index with lines repeated, moved, lost, or with other numbers in them."""
    lines = index.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        if not lines:
            break
        at, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["repeat", "swap", "drop", "number", "junk", "cut"])):
            case "repeat":
                lines.insert(other, lines[at])
            case "swap":
                lines[at], lines[other] = lines[other], lines[at]
            case "drop":
                del lines[at]
            case "number":
                fields = [*lines[at].split(b"\t"), b"", b""][:2]
                fields[draw(st.integers(0, 1))] = draw(st.sampled_from(DECIMALS))
                lines[at] = b"\t".join(fields)
            case "junk":
                lines[at] = draw(st.binary(max_size=30))
            case "cut":
                lines[at] = lines[at][: draw(st.integers(0, 3))]
    return draw(st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b" ", b"\0"])).join(lines)
