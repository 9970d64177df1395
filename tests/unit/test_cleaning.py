"""Angles of identities, and what is suspected of them: embeddings drawn with known errors."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from data_pipeline.relabel import DROP, read_relabel
from trainer.cleaning.angles import angle, halves, in_scatters, nearest_other, to_the_others, two_groups, unit
from trainer.cleaning.relabelling import relabel_lines
from trainer.cleaning.survey import Survey, survey
from trainer.cleaning.suspicion import suspect

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
PEOPLE, IMAGES, DIM = 60, 12, 32


def test_angle_to_the_others_by_hand() -> None:
    """Three images in a plane at 0, 0 and 90 degrees."""
    units = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    assert np.degrees(to_the_others(units)).tolist() == pytest.approx([45, 45, 90], abs=1e-4)
    assert np.isnan(to_the_others(units[:1])).all(), "one image has no others"


def test_two_groups_of_two_people() -> None:
    degrees = np.radians([0, 4, 8, 12, 90, 94, 98])
    units = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    found = two_groups(units)
    assert found is not None
    assert found.second.tolist() == [False] * 4 + [True] * 3, "the smaller group is the second"
    assert math.degrees(found.separation) == pytest.approx(88, abs=1e-3)  # of the means, 6 and 94 degrees
    assert math.degrees(found.spread) == pytest.approx(6, abs=1e-3)  # 0 from 92 and 6 from 92 and 98


def test_a_few_wrong_images_are_no_second_person() -> None:
    """One at 90 degrees and two that have nothing to do with each other: the groups are those of the rest."""
    degrees = np.radians([0, 2, 4, 6, 8, 10, 12, 90, 150, -120])
    found = two_groups(np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32))
    assert found is not None
    assert not found.second[7:].any()
    assert math.degrees(found.separation) == pytest.approx(7, abs=0.6)
    assert two_groups(np.eye(5, dtype=np.float32)) is None, "five images hold no two groups"


def test_equal_images_are_one_group() -> None:
    assert two_groups(np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (8, 1))) is None


def test_one_person_in_two_folders_is_a_likeness_of_one() -> None:
    """Whatever the scatter, and however many images each folder has; another person is far from it."""
    draw = np.random.default_rng(6)
    people = unit(draw.normal(size=(400, 64)).astype(np.float32))
    for scatter, sizes in ((0.02, (8, 8)), (0.05, (30, 8))):
        found = []
        for one, other in ((0, 0), (0, 1)):
            for number in range(200):
                rows = [
                    unit(people[number + each] + scatter * draw.normal(size=(size, 64)).astype(np.float32))
                    for each, size in zip((one, other), sizes, strict=True)
                ]
                means = [unit(each.sum(axis=0)) for each in rows]
                between = np.float32([angle(np.sum(means[0] * means[1]))])
                found.append(float(in_scatters(between, *(np.float32([halves(each)]) for each in rows))[0]))
        assert np.median(found[:200]) == pytest.approx(1, abs=0.05)
        assert max(found[:200]) < min(found[200:]) / 3
    assert np.isnan(halves(people[:1]))


@pytest.mark.parametrize("tile", [3, 4096])
def test_nearest_other_is_the_dense_answer(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.cleaning.angles.TILE", tile)
    draw = np.random.default_rng(0)
    rows, directions = (unit(draw.normal(size=(n, 5)).astype(np.float32)) for n in (20, 7))
    own = draw.integers(0, 7, size=20)
    also = np.where(np.arange(20) % 2, draw.integers(0, 7, size=20), -1)
    where, angles = nearest_other(rows, directions, own, also=also)
    cosines = rows @ directions.T
    for i in range(20):
        allowed = [j for j in range(7) if j not in (own[i], also[i])]
        best = max(allowed, key=lambda j: cosines[i, j])
        assert where[i] == best
        assert angles[i] == pytest.approx(float(angle(cosines[i, best])), abs=1e-5)


def test_who_is_alone_has_no_other() -> None:
    one = np.array([[1.0, 0.0]], dtype=np.float32)
    where, angles = nearest_other(one, one, np.array([0]))
    assert where.tolist() == [-1]
    assert np.isnan(angles).all()


class Injected:
    """60 people of 12 images; identities 0-2 hold two people each, 57-59 are second folders of 10-12, and 20 images
    have wrong labels, 15 of people who are there and 5 of nobody.
    """

    def __init__(self, *, errors: bool = True) -> None:
        draw = np.random.default_rng(4)
        people = unit(draw.normal(size=(PEOPLE + 8, DIM)).astype(np.float32))
        person = np.repeat(np.arange(PEOPLE), IMAGES)
        labels = person.copy()
        self.flipped: dict[int, int] = {}
        self.strangers: set[int] = set()
        if errors:
            for k in range(3):
                person[labels == 57 + k] = 10 + k
                person[np.flatnonzero(labels == k)[: IMAGES // 2 - 1]] = PEOPLE + k
            chosen = draw.permutation(np.flatnonzero((labels > 15) & (labels < 57)))
            for image in chosen[:15].tolist():
                self.flipped[image] = int(person[image])
                labels[image] = 16 + (labels[image] - 16 + 7) % 41
            for number, image in enumerate(chosen[15:20].tolist()):
                person[image] = PEOPLE + 3 + number
                self.strangers.add(image)
        noise = 0.1 * draw.normal(size=(len(person), DIM)).astype(np.float32)
        self.order = np.argsort(labels, kind="stable")
        self.labels, self.people = labels, people
        self.embeddings = unit(people[person] + noise)

    def survey(self, embeddings: np.ndarray | None = None) -> Survey:
        rows = self.embeddings if embeddings is None else embeddings
        half = rows[self.order].astype(np.float16)
        centers = torch.from_numpy(self.people[:PEOPLE])
        return survey(half, self.order, self.labels[self.order], centers, device=CPU)


def test_known_errors_are_found_and_nothing_else(tmp_path: Path) -> None:
    data = Injected()
    found = data.survey()
    suspicions = suspect(found)
    assert {one.number for one in suspicions.merged} == {0, 1, 2}
    for one in suspicions.merged:
        assert sorted(one.images.tolist()) == list(range(one.number * IMAGES, one.number * IMAGES + 5))
    assert {(pair.keep, pair.other) for pair in suspicions.split} == {(10, 57), (11, 58), (12, 59)}
    wrong = {int(found.positions[each.place]): each for each in suspicions.wrong}
    assert wrong.keys() == data.flipped.keys() | data.strangers
    assert {image for image, each in wrong.items() if not each.moves} == data.strangers

    cautious = relabel_lines(found, suspicions, num_classes=PEOPLE, records="train.rec")
    assert sorted(line.split("\t")[1] for line in cautious if "\tdrop\tnoisy" in line) == sorted(map(str, wrong))

    # As a relabel file: whoever was wrong is put right, nobody else is touched.
    path = tmp_path / "relabel.tsv"
    path.write_text(
        "\n".join(relabel_lines(found, suspicions, num_classes=PEOPLE, records="train.rec", move=True)) + "\n"
    )
    after = read_relabel(path).apply(data.labels, path)
    expected = data.labels.copy()
    for k in range(3):
        expected[expected == 57 + k] = 10 + k
    for image, identity in data.flipped.items():
        expected[image] = identity
    expected[list(data.strangers)] = DROP
    new = {}
    for one in suspicions.merged:
        new[one.number] = int(after[one.images[0]])
        expected[one.images] = new[one.number]
    assert sorted(new.values()) == [PEOPLE, PEOPLE + 1, PEOPLE + 2], "numbers that nobody has"
    assert after.tolist() == expected.tolist()


def test_clean_data_raise_no_suspicion() -> None:
    suspicions = suspect(Injected(errors=False).survey())
    assert (suspicions.merged, suspicions.split, suspicions.wrong) == ([], [], [])


def test_a_stricter_fence_finds_no_more() -> None:
    found = Injected().survey()
    counts = []
    for strictness in (0.5, 1.5, 6.0, 60.0):
        suspicions = suspect(found, strictness=strictness)
        counts.append((len(suspicions.merged), len(suspicions.split), len(suspicions.wrong)))
    merged, split, _ = zip(*counts, strict=True)  # images of who is not called merged may be called wrong instead
    assert list(merged) == sorted(merged, reverse=True)
    assert list(split) == sorted(split, reverse=True)
    assert counts[-1] == (0, 0, 0)


def test_what_cannot_be_used_is_left_out() -> None:
    data = Injected()
    embeddings = data.embeddings.copy()
    gone = np.flatnonzero(data.labels == 30)
    embeddings[gone] = np.nan
    embeddings[np.flatnonzero(data.labels == 31)[1:]] = np.nan
    found = data.survey(embeddings)
    assert 30 not in found.identities
    assert not np.isin(gone, found.positions).any()
    (alone,) = np.flatnonzero(found.identities == 31)
    assert found.counts[alone] == 1
    assert np.isnan(found.spread[alone])
    assert {one.number for one in suspect(found).merged} == {0, 1, 2}


def test_nobody_at_all() -> None:
    nothing = np.empty(0, dtype=np.int64)
    found = survey(np.empty((0, 8), dtype=np.float16), nothing, nothing, torch.ones(3, 8), device=CPU)
    suspicions = suspect(found)
    assert (suspicions.merged, suspicions.split, suspicions.wrong) == ([], [], [])


def test_angles_to_trained_centers() -> None:
    data = Injected(errors=False)
    found = data.survey()
    truth = np.sum(data.embeddings[data.order] * data.people[data.labels[data.order]], axis=1)
    assert np.abs(found.own_center - angle(truth)).max() < 3e-3  # float16 of the file
    assert bool((found.nearest_center > found.own_center).all())
    assert float(found.mean_to_center.max()) < float(found.own_center.max())
