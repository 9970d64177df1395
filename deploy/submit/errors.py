"""What can be wrong with a submission."""


class SubmitError(Exception):
    """One line for people: what is wrong, where, and the way out. code: of the process, 2 for bad input."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.code = code


class LeftBehindError(SubmitError):
    """The same, where something of the run is, or may be, where it was sent: pfc cancel can try once more."""
