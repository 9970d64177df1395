"""Screening by int8 or float32 products finds exactly what scoring every pair finds."""

import pytest
import torch
from torch.nn.functional import normalize

from trainer.evaluation import screened_top_k
from trainer.evaluation.coded_rows import CodedRows
from trainer.evaluation.row_blocks import row_blocks
from trainer.evaluation.screened_top_k import ScreenedTopK
from trainer.evaluation.search import search
from trainer.evaluation.sharded_rows import ShardedRows
from trainer.evaluation.tiled_top_k import TileScores
from trainer.world import World

pytestmark = pytest.mark.unit

DIM, TILE, K = 128, 512, 5
CPU = torch.device("cpu")


def rows_of(kind, count, seed):
    """Unit rows: "even"; "leaning" to one side; "rough", a few large components; with zero rows and equal ones."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, DIM, generator=generator)
    if kind == "leaning":
        rows += 3 * torch.ones(DIM)
    if kind == "rough":
        rows = rows**5
    rows = normalize(rows)
    if kind == "even":
        rows[7::61] = 0.0
        rows[11::97] = rows[0].clone()
    return rows


def exact(probes, gallery):
    """float64 sums rounded to float32, best first, of equal ones the first row."""
    scores = (probes.double() @ gallery.double().T).float()
    values, places = scores.sort(dim=1, descending=True, stable=True)
    return values[:, :K], places[:, :K]


def screened(probes, gallery, coded):
    best = ScreenedTopK(probes, K, TileScores(CPU), torch.empty(TILE * (len(probes) + 16), dtype=torch.int32))
    products = []
    for name in ("_by_int8", "_by_float32"):
        original = getattr(best, name)
        setattr(best, name, lambda tile, original=original, name=name: told(original(tile), name, products))
    for first in range(0, len(gallery), TILE):
        tile = gallery[first : first + TILE]
        best.add_rows(CodedRows.of(tile) if coded else CodedRows(tile), first)
    return best, products


def told(found, name, products):
    products.append((name, found is not None))
    return found


@pytest.mark.parametrize("kind", ["even", "leaning", "rough"])
@pytest.mark.parametrize("probes", [1, 37])
def test_both_products_find_what_scoring_every_pair_finds(kind, probes, monkeypatch):
    monkeypatch.setattr(screened_top_k, "MOST_LEFT", 0.2)  # such small galleries leave more than large ones
    some, gallery = rows_of(kind, probes, 1), rows_of(kind, 12 * TILE + 100, 2)
    values, places = exact(some, gallery)
    for coded in (False, True):
        best, products = screened(some, gallery, coded)
        assert torch.equal(best.scores, values)
        assert torch.equal(best.places, places)
        used = ("_by_int8", True) in products
        assert used == (coded and not (kind == "even" and probes > 7)), "a zero probe has no use for codes"


def test_where_codes_leave_too_much_they_are_left_alone_for_a_while(monkeypatch):
    monkeypatch.setattr(screened_top_k, "MOST_LEFT", 0.0)
    some, gallery = rows_of("leaning", 20, 1), rows_of("leaning", 20 * TILE, 2)
    best, products = screened(some, gallery, coded=True)
    assert torch.equal(best.places, exact(some, gallery)[1])
    tried = [number for number, (name, _) in enumerate(products) if name == "_by_int8"]
    assert len(tried) == 5, "at tiles 2, 4, 7, 11 and 17: each time after half as many more"
    assert not any(good for name, good in products if name == "_by_int8")


def test_a_search_is_the_same_in_other_company(monkeypatch):
    """Coded or not, and whatever other probes and rows there are: a score depends on its two rows alone."""
    monkeypatch.setattr(screened_top_k, "MOST_LEFT", 0.2)
    world = World(0, 1, 0, CPU)
    some, gallery = rows_of("leaning", 300, 1), rows_of("leaning", 3000, 2)

    def searched(probes, rows):
        return search(
            ShardedRows(row_blocks(len(probes), 1), probes, world),
            ShardedRows(row_blocks(len(rows), 1), rows, world), K, device=CPU,
        )  # fmt: skip

    many, few = searched(some, gallery), searched(some[:13], gallery)
    assert torch.equal(torch.from_numpy(many.scores), exact(some, gallery)[0])
    assert (many.scores[:13] == few.scores).all()
    assert (many.rows[:13] == few.rows).all()
    moved = searched(some[:13], torch.cat((gallery[1234:], gallery[:1234])))
    assert (moved.scores == few.scores).all()
