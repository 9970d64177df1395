"""The errors of this package: input that a user gave and that cannot be used."""

from typing import Literal, get_args

Reason = Literal["undecodable", "truncated", "empty", "wrong_size", "bad_record", "io_error"]
REASONS: tuple[Reason, ...] = get_args(Reason)


class DataError(ValueError):
    """A record file, index, image or pairs file cannot be used.

    The message is one line: what is wrong, where (file, record, byte), and the way out.
    Commands turn it into exit code 2.
    """


class BadRecordError(DataError):
    """One record is bad while the rest of its file may be sound; ``reason`` is one of a closed set.

    - "undecodable": the image's bytes are no image that can be decoded.
    - "truncated": the image, or the file below the record, ends early.
    - "empty": the record holds no image bytes.
    - "wrong_size": the image has another size, where that is asked to be an error.
    - "bad_record": no well-formed record starts there, or its label is no identity.
    - "io_error": the operating system could not read the bytes.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[type["BadRecordError"], tuple[Reason, str]]:
        return BadRecordError, (self.reason, str(self))
