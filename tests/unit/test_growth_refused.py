"""A run that cannot grow says so in one line, with exit code 2, and writes nothing; one that can goes on by itself."""

import json
import shutil
from pathlib import Path

import pytest
from growing import DIM, NEW, OLD, SIZE, write_people
from training_here import train_here

from data_pipeline import RecordReader
from trainer.checkpoint import complete_checkpoints, read_description
from trainer.config import load_config
from trainer.errors import ConfigError

pytestmark = pytest.mark.unit

RUN = f"""
[run]
output = "{{output}}"
seed = 7
device = "cpu"
[data]
records = "{{records}}"
image_size = {SIZE}
batch_size = 6
decoder = "cpu"
[backbone]
embedding_dim = {DIM}
[optimizer]
lr = 0.05
[train]
steps = 6
[log]
every_steps = 1
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, and a run on the first."""
    folder = tmp_path_factory.mktemp("growth")
    write_people(folder / "old", OLD)
    write_people(folder / "new", NEW)
    config = folder / "old.toml"
    config.write_text(RUN.format(output=folder / "run", records=folder / "old"))
    assert train_here(config) == 0
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(trained, tmp_path / "here")
    return tmp_path / "here"


def grow(place: Path, *overrides: str) -> int:
    config = place / "new.toml"
    config.write_text(RUN.format(output=place / "grown", records=place / "new"))
    return train_here(config, f"growth.from={place / 'run'}", *overrides)


def checkpoint_of(place: Path) -> Path:
    return complete_checkpoints(place / "run")[-1]


def spoil_checkpoint(place: Path) -> None:
    path = checkpoint_of(place) / "rank_0000.bin"
    content = bytearray(path.read_bytes())
    chunk = read_description(checkpoint_of(place)).tensors["centers"]["chunks"][0]
    content[chunk["begin"] + 5] ^= 1
    path.write_bytes(content)


def cut_checkpoint(place: Path) -> None:
    path = checkpoint_of(place) / "rank_0000.bin"
    path.write_bytes(path.read_bytes()[:-9])


def forget_names(place: Path) -> None:
    (place / "run" / "identities.tsv").unlink()


def change_names(place: Path) -> None:
    path = place / "run" / "identities.tsv"
    path.write_text(path.read_text("utf-8").replace("ann", "anna"), "utf-8")


def spoil_names(place: Path) -> None:
    (place / "new" / "identities.tsv").write_bytes(b"0\tann\n1\t\xff\n")


def name_with_a_tab(place: Path) -> None:
    path = place / "new" / "identities.tsv"
    path.write_text(path.read_text("utf-8").replace("eve", "e\tve"), "utf-8")


def no_names(place: Path) -> None:
    (place / "new" / "identities.tsv").unlink()


def only_strangers(place: Path) -> None:
    path = place / "new" / "identities.tsv"
    path.write_text("".join(f"{number}\tstranger {number}\n" for number in range(len(NEW))))


def fill_output(place: Path) -> None:
    (place / "grown").mkdir()
    (place / "grown" / "thesis.tex").touch()


def no_checkpoints(place: Path) -> None:
    shutil.rmtree(place / "run" / "checkpoints")


def no_run(place: Path) -> None:
    shutil.rmtree(place / "run")


@pytest.mark.parametrize(
    ("spoil", "overrides", "message"),
    [
        (no_run, [], "no such run folder or checkpoint folder"),
        (no_checkpoints, [], "holds no complete checkpoint"),
        (None, ["backbone.embedding_dim=24"], "set backbone.embedding_dim = 16"),
        (None, ["backbone.name=iresnet18"], "set backbone.name = 'mobilefacenet'"),
        (None, ["backbone.normalization=group"], 'set backbone.normalization to "batch" or "sync_batch"'),
        (None, ["data.image_size=48"], "the model wants"),
        (spoil_checkpoint, [], "centers at byte"),
        (cut_checkpoint, [], "rank_0000.bin: ends at byte"),
        (forget_names, [], "identities.tsv is missing: the names that"),
        (change_names, [], "does not hold the names that"),
        (None, ["growth.identities=absent.tsv"], "absent.tsv: no such file"),
        (spoil_names, [], "line 2"),
        (name_with_a_tab, [], "give a whole number, one tab and a name without tabs"),
        (no_names, [], "no identity of the data set is one of the old run's: the data set goes by numbers"),
        (only_strangers, [], "the data set has names like 'stranger 0'"),
        (fill_output, [], "is not empty and holds no run"),
        (None, ["run.output=HERE/run"], "growth.from and run.output are the same run"),
        (None, ["growth.form=x"], "the nearest known key is 'growth.from'"),
        (None, ["growth.new_centers=random", "growth.images_per_identity=3"], "no meaning for new_centers = 'random'"),
        (None, ["backbone.pretrained=x.pt"], "both say where the backbone comes from"),
        (None, ["data.identities_sha256=abc"], "data.identities_sha256 is abc, the data set's names have"),
    ],
)  # fmt: skip
def test_refused(
    place: Path, spoil: object, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if callable(spoil):
        spoil(place)
    before = sorted(path for path in place.rglob("*") if path.name != "new.toml")
    assert grow(place, *(override.replace("HERE", str(place)) for override in overrides)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("growing")]
    assert line.startswith("pfc: error: ")
    assert message in line
    assert sorted(path for path in place.rglob("*") if path.name != "new.toml") == before


def test_a_grown_run_goes_on_without_the_old_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert grow(place, "train.steps=3", "checkpoint.keep=9") == 0
    err = capsys.readouterr().err
    assert "grown from" in err and "8 identities kept, 4 new" in err
    grown = place / "grown"
    assert (grown / "identities.tsv").read_bytes() == (place / "new" / "identities.tsv").read_bytes()
    names = [path.name for path in complete_checkpoints(grown)]
    assert names == ["step_00000000", "step_00000003"]
    config = read_description(grown / "checkpoints" / "step_00000000").config
    assert config["growth"]["from"] == str(place / "run")
    assert len(config["data"]["identities_sha256"]) == 64
    logged = [json.loads(line) for line in (grown / "logs" / "rank_0000.jsonl").read_text().splitlines()]
    (line,) = [each for each in logged if each["event"] == "grown"]
    assert (line["kept"], line["new"], line["left"], line["step"]) == (8, 4, 2, 6)
    # As if it had been killed after growing, and the old run had gone meanwhile.
    shutil.rmtree(grown / "checkpoints" / "step_00000003")
    no_run(place)
    first = losses(grown)
    assert grow(place, "train.steps=3", "checkpoint.keep=9") == 0
    assert "growing" not in capsys.readouterr().err
    assert losses(grown) == first, "what was saved after growing is what had been trained on"
    # Growth is a part of what the run is.
    assert train_here(place / "new.toml", "train.steps=3") == 2
    assert "growth.images_per_identity is 8 there, None here" in capsys.readouterr().err


def test_names_of_a_run_that_had_none(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint folder, moved away from its run, and a file of names."""
    moved = place / "elsewhere" / "step"
    moved.parent.mkdir()
    shutil.move(checkpoint_of(place), moved)
    shutil.move(place / "run" / "identities.tsv", place / "names of the old run")
    shutil.rmtree(place / "run")
    names = f"growth.identities={place / 'names of the old run'}"
    assert grow(place, f"growth.from={moved}", names, "train.steps=1") == 0
    assert f"grown from {moved}: 8 identities kept" in capsys.readouterr().err


def test_a_bad_image_of_somebody_new(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = place / "new" / "train.rec"
    content = records.read_bytes()
    who = NEW.index("single")  # has one image
    offset = offset_of_image_of(place / "new", who)
    at = content.index(b"\xff\xd8", offset)
    records.write_bytes(content[: at + 2] + bytes(60) + content[at + 62 :])
    assert grow(place, "train.steps=1") == 2
    assert "cannot be decoded" in capsys.readouterr().err.splitlines()[-1]
    assert not (place / "grown").exists()
    assert grow(place, "train.steps=1", "data.bad_images=skip") == 0
    assert "(at the mean of at most 8 images each, 1 without a usable one at random)" in capsys.readouterr().err


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def offset_of_image_of(folder: Path, who: int) -> int:
    with RecordReader(folder) as reader:
        place = int((reader.identities == who).argmax())
        return int(reader.shards[0].offsets[place])


def test_a_run_keeps_the_names_it_was_begun_with(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = place / "old.toml"
    config.write_text(RUN.format(output=place / "run", records=place / "old"))
    names, kept = place / "old" / "identities.tsv", place / "run" / "identities.tsv"
    lines = names.read_text("utf-8").split("\n")[:-1]
    names.write_text("\n".join(lines[::-1]) + "\r\n", "utf-8")  # the same names in another order
    assert train_here(config) == 0
    names.unlink()
    assert train_here(config) == 0, "the run knows them"
    assert kept.exists()
    capsys.readouterr()
    names.write_text("\n".join(lines).replace("eve", "evelyn") + "\n", "utf-8")
    assert train_here(config) == 2
    told = capsys.readouterr().err
    assert "was begun with other identities: 5 was 'eve' and is 'evelyn' in the data set" in told
    assert "[growth]" in told


def test_a_run_without_names_may_get_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_people(place / "plain", OLD, with_names=False)
    config = place / "plain.toml"
    config.write_text(RUN.format(output=place / "plain run", records=data))
    assert train_here(config, "train.steps=1") == 0
    assert not (place / "plain run" / "identities.tsv").exists()
    shutil.copy(place / "old" / "identities.tsv", data)
    assert train_here(config, "train.steps=1") == 0
    assert (place / "plain run" / "identities.tsv").exists()


def test_other_data_in_the_same_folder_is_told_the_way(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = place / "old.toml"
    config.write_text(RUN.format(output=place / "run", records=place / "new"))
    assert train_here(config) == 2
    told = capsys.readouterr().err
    assert "was begun with other identities" in told
    (place / "run" / "identities.tsv").unlink()
    (place / "new" / "identities.tsv").unlink()
    assert train_here(config) == 2
    assert "holds another run (data.identities_sha256 is" in (told := capsys.readouterr().err)
    assert "[growth] takes its centers over into a new run" in told


def test_the_table_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(RUN.format(output="a", records="b") + '[growth]\nfrom = "old"\nmomentum = "empty"\n')
    config = load_config(path)
    assert config.growth is not None and config.growth.from_ == Path("old").absolute()
    path.write_text(config.to_toml())
    assert 'from = "' in path.read_text()
    assert load_config(path) == config
    with pytest.raises(ConfigError, match=r"'growth\.from' is missing"):
        path.write_text(RUN.format(output="a", records="b") + '[growth]\nmomentum = "empty"\n')
        load_config(path)
