"""DALI alone: its own RecordIO reader, decoder and normalisation, with outputs like this loader's."""

import importlib
from pathlib import Path
from typing import Any

import torch
import torch.utils.dlpack

from data_pipeline import DataError, RecordReader


def write_filtered_index(reader: RecordReader, path: Path) -> None:
    """One index of the images of all files, which is what DALI needs.

    It would take header and range records for images and fail on them; and it numbers the bytes of several files
    as if they were one.
    """
    before = number = 0
    with path.open("w") as stream:
        for shard in reader.shards:
            for _, offsets in shard.offsets.chunks():
                stream.writelines(
                    f"{number + place}\t{before + offset}\n" for place, offset in enumerate(offsets.tolist())
                )
                number += len(offsets)
            before += shard.path.stat().st_size


class BareDali:
    """Endless shuffled batches: float32 [B, 3, H, W] in [-1, 1] and labels, by ``fn.readers.mxnet``."""

    def __init__(
        self,
        reader: RecordReader,
        index: Path,
        *,
        batch_size: int,
        image_size: int,
        threads: int,
        prefetch: int,
        device: torch.device,
        flip: bool,
        resize: bool,
        seed: int,
    ) -> None:
        dali: Any = importlib.import_module("nvidia.dali")
        fn, types = dali.fn, dali.types
        on_gpu = device.type == "cuda"
        self._pipeline = dali.Pipeline(
            batch_size=batch_size,
            num_threads=threads,
            device_id=device.index if on_gpu else None,
            prefetch_queue_depth=prefetch,
            seed=seed,
            exec_dynamic=True,
        )
        with self._pipeline:
            jpegs, labels = fn.readers.mxnet(
                path=[str(path) for path in reader.paths], index_path=[str(index)], random_shuffle=True, seed=seed
            )
            images = fn.decoders.image(jpegs, device="mixed" if on_gpu else "cpu", output_type=types.RGB)
            if resize:
                images = fn.resize(
                    images, size=(image_size, image_size), interp_type=types.INTERP_LINEAR, antialias=True
                )
            images = fn.crop_mirror_normalize(
                images,
                dtype=types.FLOAT,
                output_layout="CHW",
                mean=[127.5] * 3,
                std=[127.5] * 3,
                mirror=fn.random.coin_flip(seed=seed) if flip else 0,
            )
            self._pipeline.set_outputs(images, labels)
        self._pipeline.build()

    def __iter__(self) -> "BareDali":
        return self

    def __next__(self) -> torch.Tensor:
        try:
            images, _ = self._pipeline.run()
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"DALI's own pipeline fails on these records ({reason}): take out what is bad") from error
        tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(images.as_tensor())
        return tensor
