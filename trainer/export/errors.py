"""An export that failed through no fault of the user's input."""


class ExportError(RuntimeError):
    """The exported file does not do what the network does, or a library cannot make it. Nothing was written.

    The message is one line.
    """
