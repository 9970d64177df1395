"""Which decoder opens the images, and on which device."""

from typing import Literal

import torch

from data_pipeline.augmentation import Augmentation
from data_pipeline.batch import Decoder
from data_pipeline.errors import DataError

DecoderName = Literal["dali", "cpu"]


def choose_device(device: str | torch.device) -> torch.device:
    """ "auto" -> cuda where there is one, else cpu; "cuda" -> the current CUDA device, with its index.

    Raises:
        DataError: no such device here.
    """
    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise DataError(f"device {device!r} is unknown: use auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cpu":
        return torch.device("cpu")
    if chosen.type != "cuda" or not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count():
        raise DataError(f"device {str(device)!r} is not on this machine: use device='cpu' or 'auto'")
    return chosen if chosen.index is not None else torch.device("cuda", torch.cuda.current_device())


def make_decoder(
    name: DecoderName, max_batch: int, image_size: int, num_threads: int, depth: int, device: torch.device,
    augmentation: Augmentation,
) -> Decoder:  # fmt: skip
    """The decoder called ``name``, for batches of at most ``max_batch`` images, ``depth`` of them in flight."""
    # Imported here: neither decoder's library is needed for the other.
    if name == "dali":
        from data_pipeline.decode_dali import DaliDecoder

        return DaliDecoder(max_batch, image_size, num_threads, depth, device, augmentation)
    from data_pipeline.decode_cpu import PillowDecoder

    return PillowDecoder(image_size, num_threads, device)
