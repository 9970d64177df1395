"""The snippet of trainer/backbones/README.md runs as it stands, and its table lists every key."""

import re
import runpy
from pathlib import Path

import pytest

from trainer.backbones import BACKBONE_NAMES, BackboneConfig

pytestmark = pytest.mark.unit

README = Path(__file__).parents[2] / "trainer" / "backbones" / "README.md"


def test_the_snippet_runs(tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(snippets) == 1
    script = tmp_path / "snippet.py"
    script.write_text(snippets[0], encoding="utf-8")
    assert runpy.run_path(str(script))["embeddings"].shape == (4, 512)


def test_every_key_and_backbone_is_listed() -> None:
    text = README.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
    named = {name.removeprefix("iresnet") for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(BackboneConfig.model_fields) - {"name"} <= named
    assert {name.removeprefix("iresnet") for name in BACKBONE_NAMES} <= named
