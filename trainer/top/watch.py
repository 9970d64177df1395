"""The loop of ``pfc top``: ask, show, wait; until it is told to stop."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.text import Text

from trainer.errors import ConfigError
from trainer.top.board import Board
from trainer.top.keys import on_key
from trainer.top.poll import Poller
from trainer.top.table import Line, Piece, lay_out, plain

QUIT_KEYS = ("q", "Q", "\x03", "\x04")
HINT = "q: quit"


async def watch(poller: Poller, *, interval_seconds: float, once: bool) -> None:
    """Show the table until q, Ctrl-C or SIGTERM; once, and as plain text, where the output is no terminal.

    Raises ConfigError when nothing answers at the beginning.
    """
    board, stop = Board(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    await _refresh(board, poller, stop)
    if board.silent and not stop.is_set():
        raise ConfigError(
            f"no rank answers on {poller.tried()} ({', '.join(board.problems[:3]) or 'nothing to ask'}): "
            "is the run started, with metrics.port set, and this machine allowed to connect?"
        )
    with _screen(stop, plain_text=once) as show:
        while not stop.is_set():
            began = time.monotonic()
            show(board)
            if once:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(0.05, interval_seconds - (time.monotonic() - began)))
            await _refresh(board, poller, stop)


async def _refresh(board: Board, poller: Poller, stop: asyncio.Event) -> None:
    """Ask all; who wants to leave does not wait for those that do not answer."""
    asking = asyncio.ensure_future(poller.poll())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            board.update(asking.result())
    finally:
        asking.cancel()
        stopping.cancel()


@contextmanager
def _screen(stop: asyncio.Event, *, plain_text: bool) -> Iterator[Callable[[Board], None]]:
    """How a board is shown on this output."""
    if plain_text or not sys.stdout.isatty():
        yield lambda board: print(plain(lay_out(board.jobs, None)), flush=True)
        return
    console = Console()

    def draw(board: Board, live: Live) -> None:
        # One column less: some terminals break the line after the last one.
        lines = lay_out(board.jobs, max(20, console.width - 1))
        live.update(_text([*lines, [], [Piece(HINT, "dim")]]), refresh=True)

    with (
        Live(console=console, screen=True, auto_refresh=False, vertical_overflow="ellipsis") as live,
        on_key(lambda key: stop.set() if key in QUIT_KEYS else None),
    ):
        yield lambda board: draw(board, live)


def _text(lines: list[Line]) -> Text:
    text = Text(no_wrap=True, overflow="crop")
    for line in lines:
        for piece in line:
            text.append(*piece)
        text.append("\n")
    return text
