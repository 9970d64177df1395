"""TensorBoard's files as TensorBoard itself reads them."""

from pathlib import Path
from typing import Any


def read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Curve -> its points (step, value), in the order of the files, without what later files take back."""
    events = _events(folder)
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def read_texts(folder: Path) -> dict[str, list[str]]:
    """The texts by name."""
    events = _events(folder)
    return {
        tag: [each.tensor_proto.string_val[0].decode() for each in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def _events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events
