"""Decoding with NVIDIA DALI, on the CPU or the GPU, fed with JPEG bytes in our own order.

DALI's own RecordIO reader counts InsightFace's header records as images and shuffles a buffer only; feeding it
through ``external_source`` keeps identities int64 and the order ours, at the same speed.
"""

import importlib
import io
from collections import deque
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.batch import BadImageError, EncodedBatch
from data_pipeline.errors import DataError
from data_pipeline.image_size import jpeg_size

try:
    # As Any: its stubs type a part of it only.
    dali: Any = importlib.import_module("nvidia.dali")
except ImportError as error:
    raise DataError(
        "decoder='dali' needs NVIDIA DALI: pip install 'pfc[cuda13]' (or [cuda12]), or use decoder='cpu'"
    ) from error


def _blank_jpeg(image_size: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.new("RGB", (image_size, image_size)).save(buffer, "JPEG")
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


class _DecodePipeline:
    """One DALI pipeline: JPEG bytes and flips in, images out; at most ``depth`` batches between the two."""

    def __init__(
        self, max_batch: int, image_size: int, num_threads: int, depth: int, device: torch.device, resize: bool
    ):
        on_gpu = device.type == "cuda"
        fn, types = dali.fn, dali.types
        self._pipeline = dali.Pipeline(
            batch_size=max_batch,
            num_threads=num_threads,
            device_id=device.index if on_gpu else None,
            prefetch_queue_depth=depth,
            exec_dynamic=True,  # its outputs are owned by whoever holds them, so batches need no copy
        )
        with self._pipeline:
            jpegs = fn.external_source(name="jpegs", device="cpu", dtype=types.UINT8, ndim=1)
            flips = fn.external_source(name="flips", device="cpu", dtype=types.INT32, ndim=0)
            images = fn.decoders.image(jpegs, device="mixed" if on_gpu else "cpu", output_type=types.RGB)
            if resize:
                images = fn.resize(
                    images, size=(image_size, image_size), interp_type=types.INTERP_LINEAR, antialias=True
                )
            images = fn.crop_mirror_normalize(
                images, dtype=types.FLOAT, output_layout="CHW", mean=[127.5] * 3, std=[127.5] * 3, mirror=flips
            )
            self._pipeline.set_outputs(images)
        self._pipeline.build()
        # The first schedule_run starts ``depth`` runs at once and would wait for as many batches. Spending it
        # on blank images makes each later call one run.
        for _ in range(depth):
            self._feed([_blank_jpeg(image_size)], np.zeros(1, dtype=np.int32))
        self._pipeline.schedule_run()
        for _ in range(depth):
            self.collect()

    def submit(self, jpegs: list[bytes], flips: NDArray[np.bool_]) -> None:
        self._feed([np.frombuffer(jpeg, dtype=np.uint8) for jpeg in jpegs], flips.astype(np.int32))
        self._pipeline.schedule_run()

    def collect(self) -> torch.Tensor:
        (images,) = self._pipeline.share_outputs()
        tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(images.as_tensor())
        self._pipeline.release_outputs()
        return tensor

    def _feed(self, jpegs: list[NDArray[np.uint8]], flips: NDArray[np.int32]) -> None:
        self._pipeline.feed_input("jpegs", jpegs)
        self._pipeline.feed_input("flips", flips)


class DaliDecoder:
    """A ``Decoder`` on DALI. ``depth`` batches at most may be in flight.

    Batches in which every image has the right size go through a pipeline without a resize; the other pipeline is
    built when the first batch needs it. A resize to the same size changes no bit, so an image does not depend
    on its neighbours in the batch.
    """

    def __init__(self, max_batch: int, image_size: int, num_threads: int, depth: int, device: torch.device) -> None:
        self._image_size = image_size
        self._arguments: dict[str, Any] = {
            "image_size": image_size,
            "num_threads": num_threads,
            "depth": depth,
            "device": device,
        }
        self._max_batch = max_batch
        self._pipelines: dict[bool, _DecodePipeline] = {}
        self._pending: deque[tuple[bool, EncodedBatch]] = deque()

    def submit(self, batch: EncodedBatch) -> None:
        """Start decoding a batch."""
        right = (self._image_size, self._image_size)
        resize = any(jpeg_size(jpeg) != right for jpeg in batch.jpegs)
        if resize not in self._pipelines:
            self._pipelines[resize] = _DecodePipeline(self._max_batch, resize=resize, **self._arguments)
        self._pending.append((resize, batch))
        self._pipelines[resize].submit(batch.jpegs, batch.flips)

    def collect(self) -> torch.Tensor:
        """Images [B, 3, H, W] of the oldest batch."""
        resize, batch = self._pending.popleft()
        try:
            return self._pipelines[resize].collect()
        except RuntimeError as error:
            # DALI drops the whole pipeline and does not say which image it was.
            self._pipelines.clear()
            suspects = [batch, *(each for _, each in self._pending)]
            self._pending.clear()
            self._blame(suspects[0], error)
            raise

    def clear(self) -> None:
        """Forget what is in flight."""
        while self._pending:
            resize, _ = self._pending.popleft()
            try:
                self._pipelines[resize].collect()
            except RuntimeError:
                self._pipelines.clear()
                self._pending.clear()

    def _blame(self, batch: EncodedBatch, error: RuntimeError) -> None:
        """Decode the images one by one and name the first that fails."""
        single: _DecodePipeline | None = None
        for place, jpeg in enumerate(batch.jpegs):
            single = single or _DecodePipeline(1, resize=True, **self._arguments)
            try:
                single.submit([jpeg], batch.flips[:1])
                single.collect()
            except RuntimeError as failure:
                raise BadImageError(place, _reason(failure)) from error


def _reason(failure: RuntimeError) -> str:
    """The one telling line in DALI's long message."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("Error in thread", "nvImageCodec", "Failed", "Unsupported"))]
    return (telling or lines or ["unknown"])[0]
