"""How a study ends early."""

from trainer.errors import ExitCode


class StudyError(RuntimeError):
    """A training of the study failed, or was stopped on request. code: what the study's process exits with."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.code = code
