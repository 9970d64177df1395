"""The relabel file: its forms and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline import DataError
from data_pipeline.relabel import DROP, Relabel, read_relabel

pytestmark = pytest.mark.unit

IDENTITIES = np.array([4, 4, 0, 7, 7, 7, 2**30, 1])


def relabel(tmp_path: Path, text: str) -> Relabel:
    path = tmp_path / "relabel.tsv"
    path.write_text(text, "utf-8")
    return read_relabel(path)


def test_all_forms(tmp_path: Path) -> None:
    text = """# a comment
4\t9
0\t9\tthe same person as 4

7\tdrop
1073741824\t-1
image\t3\t16777217\tmoved
image\t1\tdrop
"""
    result = relabel(tmp_path, text).apply(IDENTITIES, tmp_path)
    assert result.tolist() == [9, DROP, 9, 2**24 + 1, DROP, DROP, DROP, 1]
    assert result.dtype == np.int64
    assert IDENTITIES.tolist() == [4, 4, 0, 7, 7, 7, 2**30, 1], "the input is left as it was"


def test_swapping_is_no_merging(tmp_path: Path) -> None:
    assert relabel(tmp_path, "4\t7\n7\t4\n").apply(IDENTITIES, tmp_path).tolist() == [7, 7, 0, 4, 4, 4, 2**30, 1]


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert relabel(tmp_path, "# nothing\n").apply(IDENTITIES, tmp_path).tolist() == IDENTITIES.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4 9\n", "line 1 .*neither"),
        ("4\n", "line 1 .*neither"),
        ("4\t9\nx\t1\n", "line 2 .*neither"),
        ("4\t-2\n", "line 1 .*neither"),
        ("-1\t2\n", "line 1 .*neither"),
        ("4\t9.0\n", "line 1 .*neither"),
        (f"4\t{2**44}\n", "line 1 .*neither"),
        ("4\t" + "9" * 5000 + "\n", "line 1 .*neither"),
        ("image\t4\n", "line 1 .*neither"),
        ("image\n", "line 1 .*neither"),
        ("image\tx\t4\n", "line 1 .*neither"),
        ("4\t9\n4\t9\n", "line 2 names identity 4 for the second time"),
        ("image\t4\t9\nimage\t4\tdrop\n", "line 2 names image 4 for the second time"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        relabel(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"identity 3 has no image in the input \(2 such lines\)"):
        relabel(tmp_path, "3\t1\n9\t1\n4\t1\n").apply(IDENTITIES, tmp_path)
    with pytest.raises(DataError, match="image 8 is not among the 8"):
        relabel(tmp_path, "image\t8\tdrop\n").apply(IDENTITIES, tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path, message in ((tmp_path / "absent", "cannot open"), (tmp_path / "binary", "is not UTF-8")):
        with pytest.raises(DataError, match=message):
            read_relabel(path)
