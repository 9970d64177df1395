"""Pillow's warnings are errors of the image; warnings of anybody else are nobody's errors while images are decoded."""

import io
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from commands import run
from PIL import Image

from data_pipeline.decode_image import decode_image

pytestmark = pytest.mark.unit


def jpeg(exif: bytes = b"") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 120, 30)).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def test_a_decoding_thread_leaves_warnings_of_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ended at random by a deprecation of DeepSpeed's, told in the training's thread amid the decoder's work."""
    inside, go_on = threading.Event(), threading.Event()
    real, found = Image.open, []

    def slow(*args: Any, **kwargs: Any) -> Image.Image:
        inside.set()
        assert go_on.wait(30)
        return real(*args, **kwargs)

    monkeypatch.setattr(Image, "open", slow)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread = threading.Thread(target=lambda: found.append(decode_image(jpeg())))
        thread.start()
        try:
            assert inside.wait(30)
            warnings.warn("of somebody else", FutureWarning, stacklevel=1)
        finally:
            go_on.set()
            thread.join(30)
    assert found[0].shape == (16, 16, 3)


SCRIPT = """
import sys
from data_pipeline.decode_image import decode_image
try:
    decode_image(bytes.fromhex(sys.argv[1]))
except ValueError as error:
    print("refused:", error)
"""


def test_what_pillow_warns_of_is_refused(tmp_path: Path) -> None:
    """In a process of its own: within tests all warnings are errors."""
    cut_short = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0"
    done = run([sys.executable, "-c", SCRIPT, jpeg(cut_short).hex()], cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.startswith("refused: Corrupt EXIF data"), done.out + done.err
