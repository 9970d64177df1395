"""The one error type of this package: input that a user gave and that cannot be used."""


class DataError(ValueError):
    """A record file, index, image or pairs file cannot be used.

    The message is one line: what is wrong, where (file, record, byte), and the way out.
    Commands turn it into exit code 2.
    """
