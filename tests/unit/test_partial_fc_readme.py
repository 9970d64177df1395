"""The snippet of partial_fc/README.md runs as it stands."""

import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

README = Path(__file__).parents[2] / "partial_fc" / "README.md"


def test_the_snippet_runs(tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(snippets) == 1
    script = tmp_path / "snippet.py"
    script.write_text(snippets[0], encoding="utf-8")
    assert runpy.run_path(str(script))["head"].steps_taken == 1
