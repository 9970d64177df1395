"""Decoding with NVIDIA DALI, on the CPU or the GPU, fed with JPEG bytes in our own order.

DALI's own RecordIO reader counts InsightFace's header records as images and shuffles a buffer only; feeding it
through ``external_source`` keeps identities int64 and the order ours, at the same speed.

The bytes come from ``pread``, not from a view of a memory map: a mapped file that is cut short while it is read kills
the process (SIGBUS), where ``pread`` reports it. A view would save 6 of some 200 microseconds an image, on the
reading thread, whose time is hidden behind decoding.
"""

import importlib
import io
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from numpy.typing import NDArray
from PIL import Image

from data_pipeline import native_library
from data_pipeline.augment_image import blur_windows
from data_pipeline.augmentation import Augmentation
from data_pipeline.augmentation_draws import draw
from data_pipeline.batch import BadImageError, EncodedBatch
from data_pipeline.decode_image import is_known_format
from data_pipeline.errors import DataError
from data_pipeline.image_rows import ImageRows, other_size

try:
    # As Any: its stubs type a part of it only.
    dali: Any = importlib.import_module("nvidia.dali")
except ImportError as error:
    raise DataError(
        "decoder='dali' needs NVIDIA DALI: pip install 'pfc[cuda13]' (or [cuda12]), or use decoder='cpu'"
    ) from error


def _blank_jpeg(image_size: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (image_size, image_size)).save(buffer, "JPEG")
    return buffer.getvalue()


def _graph(augmentation: Augmentation, image_size: int, resize: bool, decoder: str, planes: bool) -> Any:
    """JPEG bytes and what is drawn for them in, images [3, S, S] out; only what is configured is in the graph.

    planes: False leaves the decoded pixels [S, S, 3] uint8 as they are.

    The same graph runs on the CPU and the GPU, and ``augment_image.py`` computes it without DALI, bit for bit as on
    the CPU: whoever changes one of them changes both.
    DALI rewrites this function: an ``if`` on a drawn value splits the batch, so that an augmentation costs time only
    for the images that it happens to.
    """
    fn, types = dali.fn, dali.types

    def drawn(name: str, dtype: Any, ndim: int) -> Any:
        return fn.external_source(name=name, device="cpu", dtype=dtype, ndim=ndim)

    images = fn.decoders.image(
        drawn("jpegs", types.UINT8, 1),
        device=decoder,
        output_type=types.RGB,
        jpeg_fancy_upsampling=True,  # on the GPU too, as the CPU always does
        # Left to itself, DALI splits each batch between a GPU's JPEG engine and its cores; an image's pixels
        # would depend on its place in the batch. Of how many there are in a batch they do depend: by up to 3 of 255
        # levels on an H100, where few are decoded in another way than many.
        hw_decoder_load=1.0,
    )
    if not planes:
        return images
    size = (image_size, image_size)
    scaling = {"interp_type": types.INTERP_LINEAR, "antialias": True, "dtype": types.FLOAT}
    if augmentation.resamples:
        starts, ends = drawn("starts", types.FLOAT, 1), drawn("ends", types.FLOAT, 1)
        small = drawn("small", types.FLOAT, 1)
        if drawn("moved", types.BOOL, 0):
            images = fn.resize(images, size=small, roi_start=starts, roi_end=ends, roi_relative=True, **scaling)
        else:
            images = fn.cast(images, dtype=types.FLOAT)
    elif resize:
        images = fn.resize(images, size=size, **scaling)
    elif not augmentation.only_flips:
        images = fn.cast(images, dtype=types.FLOAT)
    if augmentation.down_up > 0 and drawn("shrunk", types.BOOL, 0):
        images = fn.resize(images, size=size, **scaling)
    if augmentation.blur > 0:
        sigmas, windows = drawn("sigmas", types.FLOAT, 1), drawn("windows", types.INT32, 1)
        if drawn("blurred", types.BOOL, 0):
            images = fn.gaussian_blur(images, sigma=sigmas, window_size=windows, dtype=types.FLOAT)
    if augmentation.recolors:
        colors = drawn("colors", types.FLOAT, 2)
        if drawn("recolored", types.BOOL, 0):
            images = fn.coord_transform(images, MT=colors)
            images = dali.math.min(dali.math.max(images, 0.0), 255.0)  # clamp() takes five times as long
    flips = drawn("flips", types.INT32, 0)
    return fn.crop_mirror_normalize(
        images, dtype=types.FLOAT, output_layout="CHW", mean=[127.5] * 3, std=[127.5] * 3, mirror=flips
    )


class _DecodePipeline:
    """One DALI pipeline: JPEG bytes and what is drawn for them in, images out; at most ``depth`` batches in between."""

    def __init__(
        self, max_batch: int, image_size: int, num_threads: int, depth: int, device: torch.device,
        augmentation: Augmentation, resize: bool,
    ) -> None:  # fmt: skip
        on_gpu = device.type == "cuda"
        self._augmentation = augmentation
        self._image_size = image_size
        # What is left to do behind the decoder is done faster by compiled code of our own.
        self._planes = on_gpu or resize or not augmentation.only_flips or not native_library.available()
        self._flips: deque[NDArray[np.bool_]] = deque()
        self._pipeline = dali.pipeline_def(_graph, enable_conditionals=True)(
            augmentation,
            image_size,
            resize,
            "mixed" if on_gpu else "cpu",
            self._planes,
            batch_size=max_batch,
            num_threads=num_threads,
            device_id=device.index if on_gpu else None,
            prefetch_queue_depth=depth,
            exec_dynamic=True,  # its outputs are owned by whoever holds them, so batches need no copy
        )
        self._pipeline.build()
        # The first schedule_run starts ``depth`` runs at once and would wait for as many batches. Spending it
        # on blank images makes each later call one run.
        blank, one = _blank_jpeg(image_size), np.zeros(1, dtype=np.int64)
        draws = None if augmentation.only_flips else draw(Augmentation(), one, 0, 0, image_size)
        for _ in range(depth):
            self._feed(EncodedBatch(one, one, [blank], one == 1, draws))
        self._pipeline.schedule_run()
        for _ in range(depth):
            self.collect()

    def submit(self, batch: EncodedBatch) -> None:
        self._feed(batch)
        self._pipeline.schedule_run()

    def collect(self) -> Callable[[], torch.Tensor]:
        (images,) = self._pipeline.share_outputs()
        tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(images.as_tensor())
        self._pipeline.release_outputs()
        return partial(_to_planes, tensor, None if self._planes else self._flips.popleft())

    def _feed(self, batch: EncodedBatch) -> None:
        feeds: dict[str, Any] = {
            "jpegs": _as_rows(batch.jpegs),
        }
        if self._planes:
            feeds["flips"] = batch.flips.astype(np.int32)
        else:
            self._flips.append(batch.flips)
        augmentation, draws, size = self._augmentation, batch.draws, self._image_size
        if draws is not None and augmentation.resamples:
            feeds["moved"] = draws.moved(size) | other_size(batch.jpegs, size)
            feeds["starts"], feeds["ends"] = map(np.ascontiguousarray, np.split(draws.boxes, 2, axis=1))
            feeds["small"] = np.repeat(draws.small.astype(np.float32)[:, None], 2, axis=1)
        if draws is not None and augmentation.down_up > 0:
            feeds["shrunk"] = draws.small != size
        if draws is not None and augmentation.blur > 0:
            feeds["blurred"] = draws.sigmas > 0
            feeds["sigmas"], feeds["windows"] = draws.sigmas[:, None], blur_windows(draws.sigmas)[:, None]
        if draws is not None and augmentation.recolors:
            feeds["recolored"], feeds["colors"] = draws.recolored(), draws.colors
        for name, values in feeds.items():
            self._pipeline.feed_input(name, values)


class DaliDecoder:
    """A ``Decoder`` on DALI. ``depth`` batches at most may be in flight.

    Batches in which every image has the right size go through a pipeline without a resize; the other pipeline is
    built when the first batch needs it. A resize to the same size changes no bit, so an image does not depend
    on its neighbours in the batch.
    """

    def __init__(
        self, max_batch: int, image_size: int, num_threads: int, depth: int, device: torch.device,
        augmentation: Augmentation,
    ) -> None:  # fmt: skip
        self._image_size = image_size
        self._arguments: dict[str, Any] = {
            "image_size": image_size,
            "num_threads": num_threads,
            "depth": depth,
            "device": device,
            "augmentation": augmentation,
        }
        self._max_batch = max_batch
        self._resamples = augmentation.resamples
        self._pipelines: dict[bool, _DecodePipeline] = {}
        self._pending: deque[tuple[bool, EncodedBatch]] = deque()

    def submit(self, batch: EncodedBatch) -> None:
        """Start decoding a batch."""
        resize = not self._resamples and bool(other_size(batch.jpegs, self._image_size).any())
        if resize not in self._pipelines:
            self._pipelines[resize] = _DecodePipeline(self._max_batch, resize=resize, **self._arguments)
        self._pending.append((resize, batch))
        self._pipelines[resize].submit(batch)

    def collect(self) -> Callable[[], torch.Tensor]:
        """The oldest batch, decoded; its images [B, 3, H, W] on demand."""
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
        """Decode the images one by one and name those that fail."""
        single: _DecodePipeline | None = None
        bad: dict[int, str] = {}
        for place, jpeg in enumerate(batch.jpegs):
            single = single or _DecodePipeline(1, resize=True, **self._arguments | {"augmentation": Augmentation()})
            try:
                single.submit(EncodedBatch(batch.indices[:1], batch.identities[:1], [jpeg], batch.flips[:1]))
                single.collect()
            except RuntimeError as failure:
                bad[place] = _reason(failure)
                single = None  # a pipeline that failed once is of no more use
        if bad:
            raise BadImageError(bad) from error


def _as_rows(images: Sequence[bytes]) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
    """As DALI takes them: one array where it can be, which saves 10 of 130 microseconds an image, else one of each."""
    if isinstance(images, ImageRows) and images.all_jpeg:
        return images.rows
    # DALI reads more formats than Pillow is allowed to: both refuse the same.
    return [np.frombuffer(each if is_known_format(each) else b"\0", np.uint8) for each in images]


def _to_planes(pixels: torch.Tensor, flips: NDArray[np.bool_] | None) -> torch.Tensor:
    """[B, S, S, 3] uint8 -> [B, 3, S, S] float32 in [-1, 1], mirrored where ``flips`` [B] says so.

    flips: None where DALI has done all that.
    """
    if flips is None:
        return pixels
    count, height, width, channels = pixels.shape
    planes = torch.empty(count, channels, height, width)
    native_library.call("pfc_to_planes", count, height, width, pixels.numpy(), flips.astype(np.uint8), planes.numpy())
    return planes


def _reason(failure: RuntimeError) -> str:
    """The one telling line in DALI's long message."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("Error in thread", "nvImageCodec", "Failed", "Unsupported"))]
    return (telling or lines or ["unknown"])[0]
