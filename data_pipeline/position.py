"""Where a loader stands: enough to continue at the next batch, on any number of ranks."""

from dataclasses import asdict, dataclass
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.order import Order

VERSION = 1
_ENDLESS = 1 << 31  # epochs: no run takes so many, and 64 bits count the images of all of them
# Earlier states know neither blocks nor balanced batches: their orders used none.
_ADDED = {"block_images": 0, "window_blocks": 0, "identities_per_batch": 0, "images_per_identity": 0}


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the endless row of epochs.

    ``samples`` counts the global samples of ``epoch`` already handed out, a multiple of ``global_batch``. After
    the last batch of an epoch it is the beginning of the next: (epoch + 1, 0). The last four say how the order is
    made; they are 0 where it does not use them.
    """

    seed: int
    epoch: int
    samples: int
    global_batch: int
    num_images: int
    order: Order
    block_images: int = 0
    window_blocks: int = 0
    identities_per_batch: int = 0
    images_per_identity: int = 0

    def as_state(self) -> dict[str, int | str]:
        """A flat dict of numbers and strings: safe for ``torch.load(weights_only=True)`` and JSON."""
        return {"version": VERSION, **asdict(self)}


def position_from_state(state: dict[str, Any], expected: Position) -> Position:
    """Check ``state`` against the loader that is to continue it (``expected``: its present position).

    Raises:
        DataError: not a loader's state, or one of another data set, seed, order or global batch.
    """
    fields = expected.as_state()
    state = {**_ADDED, **state} if isinstance(state, dict) else {}
    if state.keys() != fields.keys():
        raise DataError(
            f"this is not the state of a loader: expected the keys {', '.join(fields)}; use another checkpoint"
        )
    for name in ("version", "num_images", "seed", "order", "global_batch", *_ADDED):
        if state[name] != fields[name] or isinstance(state[name], bool):
            raise DataError(
                f"the loader's state has {name} {state[name]!r} but this loader has {fields[name]!r}: "
                "continue with the same data, seed, order and batch_size x world_size, or start a new run"
            )
    epoch, samples = state["epoch"], state["samples"]
    if not all(type(number) is int and number >= 0 for number in (epoch, samples)) or epoch >= _ENDLESS:
        raise DataError(
            f"the loader's state has epoch {epoch!r} and samples {samples!r}: it is damaged, use another checkpoint"
        )
    if samples % expected.global_batch or samples >= expected.num_images:
        raise DataError(
            f"the loader's state has {samples} samples, not a whole number of batches of {expected.global_batch} "
            f"inside {expected.num_images} images: it is damaged, use another checkpoint"
        )
    return Position(**{name: value for name, value in state.items() if name != "version"})
