"""Sampled steps: who takes part, what their gradient is, and what it is on average."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from partial_fc import ArcFace, CenterSGD, ClassShard, CombinedMargin, CosFace, PartialFC, SFace
from partial_fc.reference import dense_margin_softmax, dense_sface
from partial_fc.selection import Selection, select_sample

pytestmark = pytest.mark.numerics


def drawn(shard: ClassShard, identities: torch.Tensor, rate: float, seed: int = 0, step: int = 0) -> Selection:
    return select_sample(shard, identities, sample_rate=rate, seed=seed, step=step)


@settings(max_examples=200, deadline=None)
@given(
    start=st.integers(0, 30),
    size=st.integers(0, 60),
    batch=st.integers(0, 20),
    rate=st.floats(0.001, 0.999),
    seed=st.integers(0, 10**9),
)
def test_positives_are_in_and_the_count_is_right(start: int, size: int, batch: int, rate: float, seed: int) -> None:
    shard = ClassShard(start, start + size)
    identities = torch.randint(100, (batch,), generator=torch.Generator().manual_seed(seed))
    selection = drawn(shard, identities, rate, seed)
    here = sorted({identity - start for identity in identities.tolist() if start <= identity < start + size})
    expected = max(round(rate * size), len(here))
    assert selection.size == expected
    rows = list(range(size)) if selection.rows is None else selection.rows.tolist()
    assert rows == sorted(set(rows))
    assert len(rows) == expected
    assert set(here) <= set(rows) <= set(range(size))
    for sample, place in zip(selection.samples.tolist(), selection.places.tolist(), strict=True):
        assert rows[place] + start == identities[sample], "identities point at their sampled row"
    assert len(selection.samples) == sum(start <= identity < start + size for identity in identities.tolist())
    if selection.weights is not None:
        weight = (size - len(here)) / (expected - len(here))
        expected_weights = [1.0 if row in here else weight for row in rows]
        assert selection.weights.tolist() == pytest.approx(expected_weights)


def test_draws_differ_by_step_shard_and_seed_and_repeat() -> None:
    identities = torch.tensor([5, 1005])
    draws = {
        (start, seed, step): tuple(drawn(ClassShard(start, start + 1000), identities, 0.1, seed, step).rows.tolist())
        for start in (0, 1000)
        for seed in (0, 1)
        for step in range(5)
    }
    assert len(set(draws.values())) == len(draws)
    again = drawn(ClassShard(1000, 2000), identities, 0.1, 1, 3)
    assert tuple(again.rows.tolist()) == draws[1000, 1, 3]


def test_micro_batches_of_a_step_share_their_draw() -> None:
    shard = ClassShard(0, 1000)
    first, second = (set(drawn(shard, torch.tensor(y), 0.1).rows.tolist()) for y in ([1, 2, 3], [4, 5]))
    assert len(first ^ second) <= 2 * 5


def test_negatives_are_drawn_evenly() -> None:
    """900 draws of 10 from 47 negatives: each count is binomial(900, 10/47); 5 standard deviations, fixed seeds."""
    counts = torch.zeros(50)
    for step in range(900):
        counts[drawn(ClassShard(0, 50), torch.tensor([3, 7, 3, 49]), 0.26, step=step).rows] += 1
    positives = torch.tensor([3, 7, 49])
    assert (counts[positives] == 900).all()
    counts[positives] = torch.nan
    share = 10 / 47
    spread = (900 * share * (1 - share)) ** 0.5
    assert torch.nan_to_num(counts - 900 * share).abs().max() < 5 * spread


LOSSES = [
    SFace(),
    SFace(sampled_negative_weight="none"),
    ArcFace(),
    CosFace(),
    CombinedMargin(32.0, 1.1, 0.3, 0.1, interclass_filter=0.5),
]


def problem(classes: int = 90, dim: int = 8, batch: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    identities = torch.randint(classes, (batch,), generator=generator)
    identities[-1] = identities[0]
    return torch.randn(batch, dim, generator=generator), identities, torch.randn(classes, dim, generator=generator)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("tile_classes", [5, 8192])
def test_a_sampled_step_is_the_dense_one_over_the_sampled_rows(loss: SFace | CombinedMargin, tile_classes: int) -> None:
    embeddings, identities, centers = problem()
    head = PartialFC(90, 8, loss, sample_rate=0.31, tile_classes=tile_classes)
    head.load_centers(centers)
    x = embeddings.clone().requires_grad_()
    found = head(x, identities)
    found.backward()
    assert head.row_gradient is not None
    rows = head.row_gradient.rows
    assert rows is not None
    assert len(rows) == round(0.31 * 90)

    inside = torch.tensor([rows.tolist().index(identity) for identity in identities.tolist()])
    truth_x = embeddings.double().requires_grad_()
    truth_w = centers[rows].double().requires_grad_()
    if isinstance(loss, SFace):
        kept = len(set(identities.tolist()))
        weights = torch.full((len(rows),), (90 - kept) / (len(rows) - kept), dtype=torch.float64)
        weights[inside] = 1.0
        if loss.sampled_negative_weight == "none":
            weights[:] = 1.0
        truth, _, _ = dense_sface(truth_x, inside, truth_w, loss, negative_weights=weights)
    else:
        truth = dense_margin_softmax(truth_x, inside, truth_w, loss)
    truth.backward()
    assert found.item() == pytest.approx(truth.item(), rel=1e-4)
    for gradient, expected in ((x.grad, truth_x.grad), (head.row_gradient.values, truth_w.grad)):
        assert (gradient.double() - expected).norm() < 1e-4 * expected.norm()
    dense = head.center_gradient()
    assert dense is not None
    assert torch.equal(dense[rows], head.row_gradient.values)
    rest = torch.ones(90, dtype=torch.bool)
    rest[rows] = False
    assert (dense[rest] == 0).all()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_unsampled_centers_rest_and_their_momentum_is_frozen(loss: SFace | CombinedMargin) -> None:
    head = PartialFC(60, 5, loss, sample_rate=0.4)
    optimizer = CenterSGD(head)
    sampled_in_some_step: set[int] = set()
    for step in range(6):
        generator = torch.Generator().manual_seed(step)
        before = head.centers.detach().clone()
        momentum = optimizer.state[head.centers].get("momentum_buffer", torch.zeros(60, 5)).clone()
        head(torch.randn(3, 5, generator=generator), torch.randint(60, (3,), generator=generator)).backward()
        assert head.row_gradient is not None
        rows = head.row_gradient.rows
        optimizer.step()
        optimizer.zero_grad()
        rest = torch.ones(60, dtype=torch.bool)
        rest[rows] = False
        assert rest.sum() == 36
        assert torch.equal(head.centers.detach()[rest], before[rest])
        assert torch.equal(optimizer.state[head.centers]["momentum_buffer"][rest], momentum[rest])
        assert (head.centers.detach()[rows] != before[rows]).any(dim=1).all()
        sampled_in_some_step |= set(rows.tolist())
    assert len(sampled_in_some_step) > 45, "every step draws anew"


def test_eval_mode_uses_all_classes() -> None:
    embeddings, identities, _ = problem()
    sampled, full = PartialFC(90, 8, CosFace(), sample_rate=0.2), PartialFC(90, 8, CosFace())
    with torch.no_grad():
        assert sampled(embeddings, identities) < full(embeddings, identities)
        assert torch.equal(sampled.eval()(embeddings, identities), full(embeddings, identities))


def test_a_rate_that_leaves_positives_only() -> None:
    head = PartialFC(90, 8, SFace(), sample_rate=0.001)
    head(torch.randn(2, 8), torch.tensor([80, 3])).backward()
    assert head.row_gradient is not None
    assert head.row_gradient.rows.tolist() == [3, 80]


def averages(loss: SFace, draws: int) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Mean and standard error over draws of the loss, the embedding and the center gradient; and their full values."""
    embeddings, identities, centers = problem()
    samples = []
    for head in (PartialFC(90, 8, loss), PartialFC(90, 8, loss, sample_rate=0.3)):
        head.load_centers(centers)
        for draw in range(1 if head.sample_rate == 1.0 else draws):
            head.steps_taken = draw
            x = embeddings.clone().requires_grad_()
            value = head(x, identities)
            value.backward()
            samples.append([value.detach()[None], x.grad, head.center_gradient()])
            head.zero_grad()
    full, sampled = samples[0], [torch.stack(series).double() for series in zip(*samples[1:], strict=True)]
    errors = [series.std(0) / draws**0.5 for series in sampled]
    return [series.mean(0) for series in sampled], errors, [value.double() for value in full]


def test_the_reweighted_sampled_gradient_is_the_full_one_on_average() -> None:
    """Every entry within 5 standard errors: 777 normal ones break that in 1 of 2,000 runs; seeds are fixed."""
    means, errors, full = averages(SFace(), draws=400)
    for mean, error, truth in zip(means, errors, full, strict=True):
        assert ((mean - truth).abs() <= 5 * error + 1e-5 * truth.abs().max()).all()
        assert error.norm() < 0.25 * truth.norm(), "the average is sharp enough to tell"
    means, errors, full = averages(SFace(sampled_negative_weight="none"), draws=400)
    for mean, error, truth in zip(means, errors, full, strict=True):
        assert ((mean - truth).abs() > 8 * error + 1e-5 * truth.abs().max()).any(), "unweighted, it is not"
