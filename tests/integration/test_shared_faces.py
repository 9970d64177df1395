"""Real faces as MXNet 1.9.1 wrote them; collected only where ../shared/faces exists."""

import itertools
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from data_pipeline import Augmentation, RecordReader, RecordWriter, check_identities, make_loader
from data_pipeline.decoders import DecoderName
from data_pipeline.pairs import read_pairs

pytestmark = pytest.mark.integration

FACES = Path(__file__).parents[3] / "shared" / "faces"


def test_images_without_header_and_range_records() -> None:
    reader = RecordReader(FACES / "train.rec")
    assert (len(reader), reader.num_identities) == (9525, 4038)
    check_identities(reader, 4038)
    assert np.array_equal(np.unique(reader.identities), np.arange(4038))


def test_our_writer_repeats_mxnets_file_byte_for_byte(tmp_path: Path) -> None:
    reader = RecordReader(FACES / "train.rec")
    with RecordWriter(tmp_path / "train.rec") as writer:
        for record in reader:
            writer.write(record.identity, record.jpeg)
    for name in ("train.rec", "train.idx"):
        assert (tmp_path / name).read_bytes() == (FACES / name).read_bytes(), name


def test_dali_decodes_every_image_once() -> None:
    loader = make_loader(FACES / "train.rec", batch_size=127, drop_last=False)
    seen = np.concatenate([batch.indices.numpy() for batch in loader])
    assert np.array_equal(np.sort(seen), np.arange(9525))


def test_both_decoders_give_the_same_bits_of_real_faces() -> None:
    usual = Augmentation(crop=0.3, down_up=0.2, color=0.5, grayscale=0.1)
    for augmentation in (None, usual):
        loaders = [
            make_loader(FACES / "train.rec", batch_size=127, decoder=decoder, augmentation=augmentation)
            for decoder in get_args(DecoderName)
        ]
        for dali, pillow in itertools.islice(zip(*loaders, strict=True), 9):
            assert torch.equal(dali.images, pillow.images)


def test_verification_pairs() -> None:
    pairs = read_pairs(FACES / "lfw_devtest.bin")
    assert (len(pairs), pairs.same.sum()) == (1000, 500)
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in pairs.jpegs)
