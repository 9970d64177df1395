"""Damaged images through both decoders: never a crash or a hang, and the same ones are bad for both."""

import importlib.util
import resource
import tempfile
import time
from pathlib import Path

import pytest
import torch
from damaged_images import picture, write_images
from hostile_files import SECONDS, bounded, changed
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import make_loader
from data_pipeline.image_fault import ImageCheck
from data_pipeline.strict_image import strict_fault

pytestmark = pytest.mark.unit

HAS_DALI = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
SIZE = 24
GOOD = [picture(number, SIZE, SIZE) for number in range(4)]
JPEGS = [
    *GOOD,
    picture(5, SIZE, SIZE, progressive=True),
    picture(6, SIZE, SIZE, restart_marker_blocks=1),
    picture(7, 40, 30, subsampling=0),
]
OTHERS = [picture(8, SIZE, SIZE, kind=kind) for kind in ("PNG", "BMP", "WEBP")]


@pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
@bounded(60)
@given(st.lists(st.one_of(changed(JPEGS), changed(OTHERS)).filter(bool), min_size=3, max_size=8))
def test_both_decoders_call_the_same_images_bad(damaged: list[bytes]) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = write_images(Path(folder) / "data", [*GOOD, *damaged])
        loaders = [
            make_loader(
                path, batch_size=5, image_size=SIZE, order="sequential", drop_last=False, decoder=decoder,
                bad_images="skip", max_bad_images=len(damaged),
            )
            for decoder in ("dali", "cpu")
        ]  # fmt: skip
        for dali, cpu in zip(*loaders, strict=True):
            assert torch.equal(dali.indices, cpu.indices)
            assert dali.images.shape == cpu.images.shape == (len(dali.indices), 3, SIZE, SIZE)
            assert torch.isfinite(dali.images).all()
        assert loaders[0].skipped == loaders[1].skipped
        assert loaders[0].bad_images.first.keys() == loaders[1].bad_images.first.keys()
    assert time.monotonic() - began < SECONDS


@bounded(1500)
@given(st.one_of(changed(JPEGS), changed(OTHERS)))
def test_the_check_never_fails_and_what_was_seen_before_changes_nothing(damaged: bytes) -> None:
    seen = ImageCheck()
    for jpeg in GOOD:
        assert seen(jpeg) is None
    assert seen(damaged) == ImageCheck()(damaged)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    strict_fault(damaged, ImageCheck())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 16 << 10, "more than 16 MiB for an image of a few hundred bytes"
