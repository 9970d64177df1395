"""Reads the few pickle opcodes that verification sets are made of, without ever importing or calling anything.

Why not `pickle.Unpickler` with `find_class`: it allocates its memo and its buffers as large as the file *says*,
before it reads on. Here every length is checked against the bytes that are left, and everything made is charged
to a budget of BUDGET_PER_BYTE times the file's size.
"""

import codecs
import re
from collections.abc import Callable
from typing import NoReturn

from data_pipeline.pickle_calls import PickleRefusedError, call, find_callable, set_state

BUDGET_PER_BYTE = 8  # protocol 2 spells a JPEG as text: 1.5 bytes a byte, then up to 4 a character once decoded
BUDGET_FLOOR = 1 << 20
OBJECT_COST = 64  # a list, tuple, bytes or str object besides its payload
SLOT_COST = 16  # an entry of the stack, of the memo or of a list
MAX_INT_DIGITS = 20  # longer decimals are quadratic to parse, and no verification set has them


def read_pickle_subset(data: bytes) -> object:
    """The object pickled in `data`, made of list, tuple, bytes, str, int, bool, None, `NumpyArray`.

    Accepts protocols 0 to 5. Python 2 `str` and Python 3 `bytearray` come back as bytes, numpy bool scalars as bool.
    Raises `PickleRefusedError` on anything else. Time and memory are linear in len(data), and nothing is executed.
    """
    return _Machine(data).run()


class _Machine:
    """The pickle virtual machine: a cursor over the bytes, a stack and a memo."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.budget = BUDGET_PER_BYTE * len(data) + BUDGET_FLOOR

    def run(self) -> object:
        while True:
            start = self.position
            opcode = self.take(1)
            if opcode == b".":
                return self.pop()
            try:
                handler = _OPCODES.get(opcode)
                if handler is None:
                    self.refuse(_FORBIDDEN.get(opcode, "is not a pickle"))
                handler(self)
            except PickleRefusedError as error:
                raise PickleRefusedError(f"{error} (byte {start})") from None

    def refuse(self, what: str) -> NoReturn:
        raise PickleRefusedError(what)

    def charge(self, cost: int) -> None:
        self.budget -= cost
        if self.budget < 0:
            self.refuse("asks for far more memory than the file holds")

    # Reading: nothing is sliced before its end is known to lie inside the file.

    def take(self, count: int) -> bytes:
        if count < 0:
            self.refuse("announces a negative length")
        end = self.position + count
        if end > len(self.data):
            self.refuse(f"is cut short: {count} bytes wanted, {len(self.data) - self.position} left")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            self.refuse("is cut short inside a line")
        piece = self.take(end - self.position)
        self.position += 1
        return piece

    def decimal(self, text: bytes) -> int:
        if not re.fullmatch(rb"-?[0-9]{1,%d}" % MAX_INT_DIGITS, text):
            self.refuse("has a line that is not a small decimal number")
        return int(text)

    # The stack. Objects below the last mark are out of reach, as in pickle itself.

    def push(self, value: object, payload: int | None = None) -> None:
        self.charge(SLOT_COST if payload is None else SLOT_COST + OBJECT_COST + payload)
        self.stack.append(value)

    def pop(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.refuse("is not a pickle: its stack runs empty")
        return self.stack.pop()

    def pop_to_mark(self) -> list[object]:
        if not self.marks:
            self.refuse("is not a pickle: it has no mark")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push_text(self, raw: bytes, encoding: str) -> None:
        self.charge(4 * len(raw))
        try:
            self.push(raw.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict"), 0)
        except UnicodeDecodeError:
            self.refuse("has text that cannot be decoded")

    def push_bytes(self, raw: bytes) -> None:
        self.push(raw, len(raw))

    def push_tuple(self, items: list[object]) -> None:
        self.push(tuple(items), SLOT_COST * len(items))

    def pop_many(self, count: int) -> list[object]:
        return [self.pop() for _ in range(count)][::-1]

    def extend_list(self, items: list[object]) -> None:
        target = self.pop()
        if not isinstance(target, list):
            self.refuse("is not a pickle: it appends to something that is no list")
        self.charge(SLOT_COST * len(items))
        target.extend(items)
        self.stack.append(target)

    def store(self, index: int) -> None:
        if index < 0 or index > len(self.data):
            self.refuse(f"has memo index {index}, larger than the file")
        value = self.pop()
        self.stack.append(value)
        self.charge(OBJECT_COST if index not in self.memo else 0)
        self.memo[index] = value

    def recall(self, index: int) -> None:
        if index not in self.memo:
            self.refuse(f"wants memo entry {index}, which was never stored")
        self.push(self.memo[index])

    # Opcodes that take more than a line.

    def py2_string(self) -> None:
        quoted = self.line().strip()
        if len(quoted) < 2 or quoted[:1] not in b"'\"" or quoted[-1:] != quoted[:1]:
            self.refuse("has a string without quotes")
        try:
            self.push_bytes(codecs.escape_decode(quoted[1:-1])[0])
        except ValueError:
            self.refuse("has a string with a broken escape")

    def int_line(self) -> None:
        text = self.line()
        self.push(text == b"01" if text in (b"00", b"01") else self.decimal(text))

    def frame(self) -> None:
        length = self.number(8)
        if length > len(self.data) - self.position:
            self.refuse(f"is cut short: a frame of {length} bytes, {len(self.data) - self.position} left")

    def protocol(self) -> None:
        version = self.number(1)
        if version > 5:
            self.refuse(f"has pickle protocol {version}, which is not known")

    def mark(self) -> None:
        self.charge(SLOT_COST)
        self.marks.append(len(self.stack))

    def global_line(self) -> None:
        module, name = self.line(), self.line()
        self.push(find_callable(module.decode("latin-1"), name.decode("latin-1")), 0)

    def global_stack(self) -> None:
        self.push(find_callable(*self.pop_many(2)), 0)

    def reduce(self) -> None:
        made = call(*self.pop_many(2))
        self.push(made, len(made) if isinstance(made, bytes) else 0)

    def build(self) -> None:
        self.stack.append(set_state(*self.pop_many(2)))


_OPCODES: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"\x95": _Machine.frame,
    b"(": _Machine.mark,
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _Machine.int_line,
    b"L": lambda m: m.push(m.decimal(m.line().rstrip(b"L"))),
    b"J": lambda m: m.push(m.number(4, signed=True)),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"S": _Machine.py2_string,
    b"U": lambda m: m.push_bytes(m.take(m.number(1))),
    b"T": lambda m: m.push_bytes(m.take(m.number(4, signed=True))),
    b"C": lambda m: m.push_bytes(m.take(m.number(1))),
    b"B": lambda m: m.push_bytes(m.take(m.number(4))),
    b"\x8e": lambda m: m.push_bytes(m.take(m.number(8))),
    b"\x96": lambda m: m.push_bytes(m.take(m.number(8))),
    b"V": lambda m: m.push_text(m.line(), "raw-unicode-escape"),
    b"\x8c": lambda m: m.push_text(m.take(m.number(1)), "utf-8"),
    b"X": lambda m: m.push_text(m.take(m.number(4)), "utf-8"),
    b"\x8d": lambda m: m.push_text(m.take(m.number(8)), "utf-8"),
    b"]": lambda m: m.push([], 0),
    b"l": lambda m: m.push(m.pop_to_mark(), 0),
    b"a": lambda m: m.extend_list([m.pop()]),
    b"e": lambda m: m.extend_list(m.pop_to_mark()),
    b")": lambda m: m.push_tuple([]),
    b"t": lambda m: m.push_tuple(m.pop_to_mark()),
    b"\x85": lambda m: m.push_tuple(m.pop_many(1)),
    b"\x86": lambda m: m.push_tuple(m.pop_many(2)),
    b"\x87": lambda m: m.push_tuple(m.pop_many(3)),
    b"p": lambda m: m.store(m.decimal(m.line())),
    b"q": lambda m: m.store(m.number(1)),
    b"r": lambda m: m.store(m.number(4)),
    b"\x94": lambda m: m.store(len(m.memo)),
    b"g": lambda m: m.recall(m.decimal(m.line())),
    b"h": lambda m: m.recall(m.number(1)),
    b"j": lambda m: m.recall(m.number(4)),
    b"c": _Machine.global_line,
    b"\x93": _Machine.global_stack,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}
_FORBIDDEN = {
    opcode: f"opcode {name} is not allowed"
    for name, opcode in {
        **{"INST": b"i", "OBJ": b"o", "NEWOBJ": b"\x81", "NEWOBJ_EX": b"\x92", "PERSID": b"P", "BINPERSID": b"Q"},
        **{"EXT1": b"\x82", "EXT2": b"\x83", "EXT4": b"\x84", "NEXT_BUFFER": b"\x97", "READONLY_BUFFER": b"\x98"},
        **{"EMPTY_DICT": b"}", "DICT": b"d", "SETITEM": b"s", "EMPTY_SET": b"\x8f", "FROZENSET": b"\x91"},
        **{"FLOAT": b"F", "BINFLOAT": b"G", "LONG1": b"\x8a", "LONG4": b"\x8b"},
        **{"POP": b"0", "POP_MARK": b"1", "DUP": b"2"},
    }.items()
}
