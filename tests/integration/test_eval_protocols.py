"""``pfc eval`` by every protocol, on one rank and several, from every place that images may be in; and bad input."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import pfc, run_warm, torchrun
from protocol_faces import SIDE, IjbLayout, photo, write_ijb, write_people
from sklearn.metrics import roc_auc_score, roc_curve

from data_pipeline.pairs import write_pairs
from trainer.backbones import BackboneConfig, build_backbone
from trainer.cli import main
from trainer.evaluation.image_sources import Decoding, FileImages

pytestmark = pytest.mark.integration

MODEL = ("model.pt", "--backbone", "mobilefacenet", "--embedding-dim", "16", "--image-size", "32", "--device", "cpu")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sets and a model in one folder, to be read only."""
    root = tmp_path_factory.mktemp("sets")
    torch.manual_seed(0)
    torch.save(build_backbone(BackboneConfig(embedding_dim=16), image_size=32).state_dict(), root / "model.pt")
    write_ijb(root)
    write_people(root, people=8, images=3)
    write_people(root, people=40, images=1, first=100)
    generator = np.random.default_rng(0)
    same, images, lines, indices = [], [], [], []
    for number in range(30):
        one, other = generator.integers(0, 8, 2)
        other = one if number % 2 else (one + 1 + other % 7) % 8
        images += [photo(one, number % 3), photo(other, (number + 1) % 3)]
        same.append(bool(one == other))
        label = "same" if one == other else "different"
        lines.append(f"person_{one:03d}/{number % 3}.jpg\tperson_{other:03d}/{(number + 1) % 3}.jpg\t{label}")
        indices.append(f"{3 * one + number % 3} {3 * other + (number + 1) % 3} {int(one == other)}")
    write_pairs(root / "pairs.bin", images, same)
    (root / "people_0" / "list.tsv").write_text("# a comment\n" + "\n".join(lines) + "\n")
    (root / "indices.txt").write_text("\n".join(indices) + "\n")
    return root


EVERYTHING = (
    *("eval", *MODEL, "--pairs", "pairs.bin", "--pairs", "people_0/list.tsv", "--ijb", "ijbc"),
    *("--identify", "people_0.rec", "--distractors", "people_100", "--distractor-counts", "5", "40"),
    *("--bootstrap", "30", "--batch-size", "4", "--json"),
)


@pytest.fixture(scope="module")
def of_one_rank(sets: Path) -> list[dict[str, Any]]:
    finished = run_warm(pfc(*EVERYTHING, "--output", "out"), cwd=sets)
    assert finished.code == 0, finished.err
    return json.loads(finished.out)


def test_every_protocol_has_its_numbers(of_one_rank: list[dict[str, Any]], sets: Path) -> None:
    binary, listed, templates, search, people = of_one_rank
    assert [each["name"] for each in of_one_rank] == ["pairs", "list", "ijbc_1_1", "ijbc_1_n", "people_0"]
    # The list names the images that the .bin holds: one is decoded by Pillow, the other by DALI.
    assert binary["threshold"] == pytest.approx(listed["threshold"], abs=0.02)
    assert 8 <= binary["identities"] == listed["identities"] < 24, "as far as same pairs join the 24 images"
    assert binary["intervals"]["accuracy_mean"][0] <= binary["intervals"]["accuracy_mean"][1]
    assert set(templates["operating_points"]) == {"1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1"}
    assert (templates["pairs"], templates["same_pairs"], templates["templates"]) == (288, 24, 36)
    assert templates["identities"] == 12
    assert templates["operating_points"]["1e-6"]["tar"] is None
    for gallery in ("G1", "G2"):
        found = search["galleries"][gallery]
        assert (found["templates"], found["mated_probes"], found["nonmated_probes"]) == (6, 12, 12)
        assert found["open_set"]["0.1"]["fpir"] <= 0.1
        assert found["open_set"]["0.1"]["fnir"] == pytest.approx(1 - found["open_set"]["0.1"]["tpir"])
        assert found["open_set"]["0.01"]["tpir"] is None, "twelve strangers measure no 1%"
    ranks = [search["average"]["rank"][rank]["rate"] for rank in ("1", "5", "10")]
    assert ranks == sorted(ranks)
    assert ranks[2] == 1.0, "a gallery of six"
    merged = search["galleries"]["merged"]
    assert merged["templates"] == 12
    assert merged["rank"]["1"]["rate"] <= ranks[0], "a larger gallery is harder"
    assert people["searches"] == 8 * 3 * 2
    assert people["rank"]["5"]["1"]["rate"] >= people["rank"]["40"]["1"]["rate"]
    assert people["different_pairs"] == 24 * 40
    for name in ("pairs", "list", "ijbc_1_1", "ijbc_1_n", "people_0"):
        folder = sets / "out" / "step_00000000" / name
        assert json.loads((folder / "result.json").read_text())["name"] == name
        for picture in ("roc", "det"):
            assert (folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
            assert b"<svg" in (folder / f"{picture}.svg").read_bytes()
    assert not list((sets / "out").rglob("*.tmp"))


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_ranks_find_the_same(of_one_rank: list[dict[str, Any]], sets: Path, ranks: int) -> None:
    finished = run_warm(torchrun(ranks, *EVERYTHING), cwd=sets, deadline_seconds=180.0)
    assert finished.code == 0, finished.err
    assert json.loads(finished.out) == of_one_rank


@pytest.fixture
def evaluate(
    sets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[dict[str, Any]]]:
    """``pfc eval`` in this process; its JSON."""
    monkeypatch.chdir(sets)

    def call(*arguments: str | Path) -> list[dict[str, Any]]:
        code = main(["eval", *MODEL, *map(str, arguments), "--bootstrap", "0", "--decoder", "cpu", "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return call


def test_crops_records_and_loose_crops_of_the_same_faces(
    evaluate: Callable[..., list[dict[str, Any]]], sets: Path
) -> None:
    crops = evaluate("--ijb", "ijbc", "--images", "ijbc_aligned")
    records = evaluate("--ijb", "ijbc", "--records", "ijbc.rec")
    assert crops == records
    loose = evaluate("--ijb", "ijbc")
    # Aligning interpolates twice, so scores move a little; the faces stay the same ones.
    assert loose[0]["auc"] == pytest.approx(crops[0]["auc"], abs=0.03)
    assert loose[0]["equal_error_rate"] == pytest.approx(crops[0]["equal_error_rate"], abs=0.06)
    by_path = evaluate("--pairs", "people_0/list.tsv")
    by_index = evaluate("--pairs", "indices.txt", "--records", "people_0.rec")
    assert by_path[0]["roc"] == by_index[0]["roc"]
    folders = evaluate("--identify", "people_0", "--distractors", "people_100")
    files = evaluate("--identify", "people_0.rec", "--distractors", "people_100.rec")
    assert folders[0]["rank"] == files[0]["rank"]
    assert set(folders[0]["rank"]) == {"10", "40"}


def test_ijbb_has_galleries_of_its_own_names_and_parts_may_be_missing(
    evaluate: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    layout = write_ijb(tmp_path, name="ijbb", subjects=4)
    both = evaluate("--ijb", layout.folder)
    assert set(both[1]["galleries"]) == {"S1", "S2", "merged"}
    for path in layout.folder.glob("meta/*.csv"):
        path.unlink()
    (alone,) = evaluate("--ijb", layout.folder)
    assert alone == both[0], "identities are known from the same pairs, too"


def test_a_gallery_that_no_probe_is_in(layout: IjbLayout, evaluate: Callable[..., list[dict[str, Any]]]) -> None:
    edit(layout.folder / "meta" / "ijbc_1N_probe_mixed.csv", lambda rows: [r for r in rows if not _odd_subject(r)])
    _, search = evaluate("--ijb", layout.folder, "--images", layout.aligned)
    assert search["galleries"]["G1"]["open_set"]["0.1"]["tpir"] is None, "no strangers"
    assert search["galleries"]["G2"]["rank"]["1"]["rate"] is None, "no mates"
    assert search["average"]["rank"]["1"]["rate"] is None
    assert search["galleries"]["merged"]["rank"]["10"]["rate"] > 0


def _odd_subject(row: str) -> bool:
    subject = row.split(",")[1]
    return subject.isdigit() and int(subject) % 2 == 1


def test_templates_as_the_papers_write_them_down(evaluate: Callable[..., list[dict[str, Any]]], sets: Path) -> None:
    """Every image by itself, media averaged one by one, all scores of all pairs: the rates of scikit-learn's curve."""
    meta = sets / "ijbc" / "meta"
    module = build_backbone(BackboneConfig(embedding_dim=16), image_size=32).eval()
    module.load_state_dict(torch.load(sets / "model.pt", weights_only=True))
    how = Decoding(image_size=32, device=torch.device("cpu"), decoder="cpu")
    listed = [line.split() for line in (meta / "ijbc_face_tid_mid.txt").read_text().splitlines()]
    detected = [float(line.split()[-1]) for line in (meta / "ijbc_name_5pts_score.txt").read_text().splitlines()]
    images = FileImages(sets / "ijbc_aligned", [name for name, _, _ in listed])
    frames: dict[str, dict[str, list[np.ndarray]]] = {}
    with torch.inference_mode():
        for (_, template, medium), score, image in zip(
            listed, detected, images.batches([np.array([place]) for place in range(len(listed))], how), strict=True
        ):
            embedding = score * (module(image) + module(image.flip(3)))[0].double().numpy()
            frames.setdefault(template, {}).setdefault(medium, []).append(embedding)
    pooled = {template: sum(np.mean(of_one, axis=0) for of_one in media.values()) for template, media in frames.items()}
    unit = {template: rows / np.linalg.norm(rows) for template, rows in pooled.items()}
    pairs = [line.split() for line in (meta / "ijbc_template_pair_label.txt").read_text().splitlines()]
    scores = np.array([unit[one] @ unit[other] for one, other, _ in pairs])
    same = np.array([label == "1" for _, _, label in pairs])
    false, true, _ = roc_curve(same, scores, drop_intermediate=False)
    found, _ = evaluate("--ijb", "ijbc", "--images", "ijbc_aligned")
    assert found["auc"] == pytest.approx(roc_auc_score(same, scores), abs=1e-3)
    for target in ("1e-2", "1e-1"):
        expected = true[np.flatnonzero(false <= float(target))[-1]]
        assert found["operating_points"][target]["tar"] == pytest.approx(expected, abs=1e-9)


def refuse(
    capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str | Path, wanted: str, output: str = "refused"
) -> None:
    """Exit code 2, one line that says ``wanted``, nothing written."""
    before = sorted(folder.rglob("*"))
    given = map(str, (*arguments, "--output", folder / output))
    assert main(["eval", *MODEL, *given, "--bootstrap", "0", "--decoder", "cpu"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pfc: error:")]
    assert len(errors) == 1
    assert wanted in errors[0], errors[0]
    assert sorted(folder.rglob("*")) == before, "nothing is written"


@pytest.fixture
def layout(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IjbLayout:
    """Copies that a test may damage."""
    for name in ("ijbc", "ijbc_aligned"):
        shutil.copytree(sets / name, tmp_path / name)
    for name in ("ijbc.rec", "ijbc.idx", "people_0.rec", "people_0.idx"):
        shutil.copy(sets / name, tmp_path / name)
    monkeypatch.chdir(sets)
    return IjbLayout(tmp_path / "ijbc", tmp_path / "ijbc_aligned", tmp_path / "ijbc.rec")


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


MISMATCHES: dict[str, tuple[str, Callable[[list[str]], list[str]], str]] = {
    "fewer landmarks": ("name_5pts_score.txt", lambda rows: rows[:-1], "lists 96 images"),
    "another order": ("name_5pts_score.txt", lambda rows: rows[::-1], "the same images in the same order"),
    "landmark is text": ("name_5pts_score.txt", lambda rows: [rows[0] + "x", *rows[1:]], "line 1 is not a name and 11"),
    "four landmarks": ("name_5pts_score.txt", lambda rows: [" ".join(r.split()[:-2]) for r in rows], "11 numbers"),
    "infinite landmark": (
        "name_5pts_score.txt", lambda rows: [rows[0].rsplit(" ", 1)[0] + " inf", *rows[1:]], "out of range"
    ),
    "no template": ("face_tid_mid.txt", lambda rows: [rows[0].rsplit(" ", 1)[0], *rows[1:]], "line 1 is not a name"),
    "nothing": ("face_tid_mid.txt", lambda rows: [], "lists nothing"),
    "out of the folder": (
        "face_tid_mid.txt", lambda rows: ["../x.png 1 1", *rows[1:]], "it is '1.png'"
    ),
    "unknown template in a pair": ("template_pair_label.txt", lambda rows: [*rows, "1 999999 0"], "template 999999"),
    "label 2": ("template_pair_label.txt", lambda rows: ["1 8 2", *rows], "pair 1 has the label 2"),
    "pair of three columns": ("template_pair_label.txt", lambda rows: ["1 8", *rows], "line 1 is not 3 whole numbers"),
    "all the same": ("template_pair_label.txt", lambda rows: [r for r in rows if r.endswith("1")], "rates need both"),
    "unknown probe": ("1N_probe_mixed.csv", lambda rows: [*rows, "424242,1,x"], "template 424242"),
    "no heading": ("1N_probe_mixed.csv", lambda rows: rows[1:], "no column TEMPLATE_ID"),
    "subject is text": ("1N_gallery_G1.csv", lambda rows: [*rows, "1,Bob,x"], "no whole numbers"),
    "two subjects of one template": ("1N_gallery_G1.csv", lambda rows: [*rows, "1,77,x"], "template 1 is of two"),
    "subject in both galleries": ("1N_gallery_G2.csv", lambda rows: [*rows, "201,1000,x"], "share 1 subjects"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISMATCHES)
def test_mismatched_template_lists(what: str, layout: IjbLayout, tmp_path: Path, capsys: Any) -> None:
    file, change, wanted = MISMATCHES[what]
    edit(layout.folder / "meta" / f"ijbc_{file}", change)
    refuse(capsys, tmp_path, "--ijb", layout.folder, wanted=wanted)


def test_missing_lists_and_images(layout: IjbLayout, tmp_path: Path, capsys: Any) -> None:
    images = layout.folder / "loose_crop"
    for name in ("7.png", "9.png"):
        (images / name).unlink()
    refuse(capsys, tmp_path, "--ijb", layout.folder, wanted=f"{images / '7.png'}: no such image (2 of 96 are missing)")
    refuse(capsys, tmp_path, "--ijb", layout.folder, "--images", tmp_path / "none", wanted="no such folder")
    refuse(capsys, tmp_path, "--ijb", layout.folder, "--records", tmp_path / "people_0.rec", wanted="records hold 24")
    (images / "7.png").write_bytes(b"no image")
    shutil.copy(images / "8.png", images / "9.png")
    refuse(capsys, tmp_path, "--ijb", layout.folder, wanted="7.png cannot be used: no JPEG, PNG")
    (layout.folder / "meta" / "ijbc_1N_gallery_G2.csv").unlink()
    refuse(capsys, tmp_path, "--ijb", layout.folder, wanted="ijbc_1N_gallery_G2.csv: missing")
    refuse(capsys, tmp_path, "--ijb", tmp_path / "elsewhere", wanted="no ijbb_face_tid_mid.txt")


def test_wrong_image_size(layout: IjbLayout, sets: Path, tmp_path: Path, capsys: Any) -> None:
    """Loose crops handed in as aligned ones would be squeezed: refused, from a folder, a list and a .bin."""
    loose = layout.folder / "loose_crop"
    refuse(capsys, tmp_path, "--ijb", layout.folder, "--images", loose, wanted="1.png is 240x230 pixels")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{loose / '1.png'} {loose / '2.png'} same\n" * 3 + "a b different\n" * 3)
    refuse(capsys, tmp_path, "--pairs", listed, "--images", loose, wanted="a: no such image (2 of 4 are missing)")
    listed.write_text(f"{loose / '1.png'} {loose / '2.png'} 1\n" * 3 + f"{loose / '1.png'} {loose / '5.png'} 0\n" * 3)
    refuse(capsys, tmp_path, "--pairs", listed, wanted="1.png is 240x230 pixels: aligned crops are square")
    write_pairs(tmp_path / "loose.bin", [photo(0, 0), (loose / "3.png").read_bytes()] * 4, [True, False] * 2)
    refuse(capsys, tmp_path, "--pairs", tmp_path / "loose.bin", wanted="image 1 (pair 0) is 240x230")
    assert SIDE == 112


BAD_LISTS = {
    "a b": "line 1 is no pair",
    "a b maybe": "line 1 says 'maybe'",
    "": "lists no pairs",
    "0 24 same": "image '24' is no index",
    "0 -1 same": "image '-1' is no index",
    "0 x same": "image 'x' is no index",
    "0 1 same": "folds need 2 of each",
}


@pytest.mark.parametrize("content", BAD_LISTS)
def test_bad_pair_lists(content: str, layout: IjbLayout, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "list.txt").write_text(content)
    options = ("--pairs", tmp_path / "list.txt", "--records", tmp_path / "people_0.rec")
    refuse(capsys, tmp_path, *options, wanted=BAD_LISTS[content])


def test_a_bin_with_odd_counts(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import pickle

    monkeypatch.chdir(sets)
    (tmp_path / "odd.bin").write_bytes(pickle.dumps(([photo(0, 0)] * 5, [True, False])))
    refuse(capsys, tmp_path, "--pairs", tmp_path / "odd.bin", wanted="holds 5 images for 2 flags instead of 4")
    (tmp_path / "odd.bin").write_bytes(b"\x80")
    refuse(capsys, tmp_path, "--pairs", tmp_path / "odd.bin", wanted="odd.bin")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "nothing to judge by"),
        (("--identify", "people_0.rec"), "go together"),
        (("--pairs", "pairs.bin", "--distractor-counts", "3"), "--distractor-counts is for"),
        (("--identify", "people_0.rec", "--distractors", "nowhere"), "nowhere: no such .rec or folder"),
        (("--identify", "people_0.rec", "--distractors", "people_100", "--distractor-counts", "41"), "holds 40 images"),
        (("--identify", "people_100", "--distractors", "people_0"), "no person has two photos"),
        (("--pairs", "pairs.bin", "--far", "0"), "--far 0"),
        (("--pairs", "pairs.bin", "--far", "often"), "--far often"),
        (("--pairs", "pairs.bin", "--confidence", "1"), "--confidence 1"),
        (("--pairs", "pairs.bin", "--ijb", "ijbc", "--ijb", "ijbc"), "two sets share the name 'ijbc_1_1'"),
        (("--pairs", "pairs.bin", "--output", "model.pt/out"), "model.pt is a file"),
    ],
)
def test_bad_options(
    arguments: tuple[str, ...], wanted: str, sets: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(sets)
    assert main(["eval", *MODEL, "--decoder", "cpu", *arguments]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pfc: error:")]
    assert len(errors) == 1
    assert wanted in errors[0], errors[0]


def test_one_ranks_missing_image_ends_all_ranks_with_code_2(layout: IjbLayout, sets: Path, tmp_path: Path) -> None:
    (layout.folder / "loose_crop" / "96.png").unlink()
    arguments = ("eval", *MODEL, "--ijb", layout.folder, "--output", tmp_path / "out", "--bootstrap", "0")
    finished = run_warm(
        [*pfc()[:1], "-m", "deploy.launch.agent", "--nproc-per-node", "2", "-m", "trainer", *map(str, arguments)],
        cwd=sets,
    )
    assert finished.code == 2, finished.err
    lines = {line.split(": ", 3)[-1] for line in finished.error_lines if "96.png" in line}
    assert len(lines) == 1, finished.err
    assert not (tmp_path / "out").exists()
