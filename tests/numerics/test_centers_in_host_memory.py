"""Centers in host memory: rows that a step needs are brought; everything is bit for bit as with centers that stay."""

import copy
from typing import Any

import pytest
import torch
from allocations import Allocations
from face_geometry import COLLAPSE, STEADY, WEAK, Faces, Phase

from partial_fc import (
    CenterSGD,
    CosFace,
    PartialFC,
    SFace,
    center_state,
    load_center_state,
    memory_use,
    native_library,
    staged_rows,
    survey_angles,
)
from partial_fc.center_module import CenterDtype, CenterMemory
from partial_fc.margins import CombinedMargin

pytestmark = pytest.mark.numerics

CLASSES, DIM, BATCH = 3001, 290, 24
CASES = {
    "screened": (SFace(), 1.0, STEADY),
    "many pairs": (SFace(), 1.0, WEAK),
    "dense": (SFace(), 1.0, COLLAPSE),
    "sampled": (SFace(), 0.2, STEADY),
    "softmax": (CosFace(), 1.0, STEADY),
}


def train(
    head: PartialFC, faces: Faces, optimizer: CenterSGD, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> list[object]:
    found: list[object] = []
    for embeddings, identities in batches:
        x = embeddings.clone().requires_grad_()
        loss = head(x, identities)
        loss.backward()
        found += [loss.item(), x.grad, head.center_gradient(), head.stats]
        optimizer.step()
        optimizer.zero_grad()
    return found


def assert_equal(found: list[object], expected: list[object]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
            assert torch.equal(ours, theirs)
        else:
            assert ours == theirs


def head_of(
    faces: Faces, case: tuple[SFace | CombinedMargin, float, Phase], center_dtype: CenterDtype, memory: CenterMemory
) -> tuple[PartialFC, CenterSGD]:
    loss, rate, phase = case
    head = PartialFC(
        CLASSES, DIM, loss, sample_rate=rate, tile_classes=700, center_dtype=center_dtype, center_memory=memory, seed=2
    )
    head.load_centers(faces.centers)
    return head, CenterSGD(head, lr=1e-3 if phase is COLLAPSE else 0.1)


@pytest.mark.parametrize("center_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "plain"])
def test_everything_is_as_with_centers_on_the_device(
    case: str, center_dtype: CenterDtype, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps, a change of rate that catches all rows up, a step of heavy decay, reads; few rows at a time."""
    if not compiled:
        monkeypatch.setattr(native_library, "available", lambda: False)
    for module in ("center_table", "staged_rows"):
        monkeypatch.setattr(f"partial_fc.{module}.MOST_STAGED", 257)
    results = []
    for memory in ("device", "host"):
        faces = Faces(CASES[case][2], CLASSES, DIM)
        head, optimizer = head_of(faces, CASES[case], center_dtype, memory)  # type: ignore[arg-type]
        batches = [faces.batch(faces.centers, BATCH) for _ in range(8)]
        found = train(head, faces, optimizer, batches[:4])
        optimizer.param_groups[0]["lr"] *= 0.01
        found += train(head, faces, optimizer, batches[4:6])
        if case != "dense":
            optimizer.param_groups[0].update(lr=2.0, weight_decay=0.3)
            found += train(head, faces, optimizer, batches[6:7])
            optimizer.param_groups[0].update(lr=0.01, weight_decay=5e-4)
        found += [
            survey_angles(head, *batches[0]),
            head.read_centers(100, 900),
            head.read_rows(torch.tensor([3000, 5])),
        ]
        found += train(head, faces, optimizer, batches[7:])
        state = head.stored_centers.detach().clone()
        results.append([*found, state, head.centers.detach().clone(), head.in_host_memory])
    assert results[1].pop() and not results[0].pop()
    assert_equal(*results)


def test_few_rows_come_to_the_device() -> None:
    """In the steady phase the device holds codes and what is staged, far less than the centers."""
    faces = Faces(STEADY, 30_011, 256)
    head = PartialFC(30_011, 256, center_memory="host")
    head.load_centers(faces.centers)
    optimizer = CenterSGD(head, lr=0.1)
    assert head.rows is not None and head.rows.staged is not None
    train(head, faces, optimizer, [faces.batch(faces.centers, 32) for _ in range(3)])
    assert head.stats is not None and head.stats.mode == "screened"
    assert head.rows.tables.weights.data_ptr() != head.stored_centers.data_ptr()
    staged = head.rows.staged.nbytes - head.rows.tables.slots.nbytes
    assert staged <= staged_rows.MOST_STAGED * 256 * 4, "codes are made so many rows at a time"
    assert memory_use(head, optimizer)["center_buffers"] >= staged


@pytest.mark.parametrize("center_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", ["softmax", "sface in eval mode"])
def test_a_loss_over_all_rows_makes_nothing_of_their_size(case: str, center_dtype: CenterDtype) -> None:
    """But its momentum, once and in host memory: gradients of micro-batches are computed tile by tile when it steps.

    All that an operation makes counts, as device and host are one here.
    """
    faces = Faces(STEADY, CLASSES, DIM)
    loss = CosFace() if case == "softmax" else SFace()
    options: dict[str, Any] = {"tile_classes": 256, "center_dtype": center_dtype, "seed": 2}
    options["sample_rate"] = 1.0 if case == "softmax" else 0.5
    heads = [PartialFC(CLASSES, DIM, loss, center_memory=memory, **options) for memory in ("host", "device")]
    optimizers = []
    for head in heads:
        head.load_centers(faces.centers)
        head.eval()
        optimizers.append(CenterSGD(head, lr=0.1))
    batches = [faces.batch(faces.centers, size) for size in (24, 7, 24, 7)]

    def two_steps(head: PartialFC, optimizer: CenterSGD) -> None:
        for number, (embeddings, identities) in enumerate(batches):
            (head(embeddings.clone().requires_grad_(), identities) / 2).backward()
            if number % 2:
                optimizer.step()
                optimizer.zero_grad()

    with Allocations(smallest=CLASSES * DIM // 2) as allocations:
        two_steps(heads[0], optimizers[0])
    assert [each.operation for each in allocations.found] == ["aten.zeros_like.default"], allocations.found
    two_steps(heads[1], optimizers[1])
    assert torch.equal(heads[0].stored_centers, heads[1].stored_centers)


def test_micro_batches_of_a_sample_and_of_all_rows_add_up() -> None:
    faces = Faces(STEADY, CLASSES, DIM)
    batches = [faces.batch(faces.centers, BATCH) for _ in range(2)]
    for modes in ((True, False), (False, True)):
        gradients = []
        for memory in ("device", "host"):
            head, _ = head_of(faces, CASES["sampled"], "float32", memory)  # type: ignore[arg-type]
            for training, (embeddings, identities) in zip(modes, batches, strict=True):
                head.train(training)
                head(embeddings.clone().requires_grad_(), identities).backward()
            gradients.append(head.center_gradient())
        assert gradients[0] is not None and gradients[1] is not None
        assert torch.equal(gradients[0], gradients[1])


def test_rows_that_go_back_do_not_count_as_written_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """After which all rows would have to be brought, and coded anew, in every step."""
    faces = Faces(STEADY, CLASSES, DIM)
    head, optimizer = head_of(faces, CASES["screened"], "float32", "host")
    train(head, faces, optimizer, [faces.batch(faces.centers, BATCH)])
    assert head.rows is not None

    def encode_rows(*arguments: object) -> None:
        raise AssertionError("all rows are coded anew")

    monkeypatch.setattr(head.rows.kernels, "encode_rows", encode_rows)
    train(head, faces, optimizer, [faces.batch(faces.centers, BATCH) for _ in range(2)])
    with torch.no_grad():
        head.centers[7] *= 2
    with pytest.raises(AssertionError, match="coded anew"):
        train(head, faces, optimizer, [faces.batch(faces.centers, BATCH)])


@pytest.mark.parametrize("case", ["screened", "softmax"])
def test_saved_and_read_by_heads_of_the_other_kind(case: str) -> None:
    faces = Faces(STEADY, CLASSES, DIM)
    batches = [faces.batch(faces.centers, BATCH) for _ in range(6)]
    tables = []
    for first, second in (("device", "host"), ("host", "device"), ("host", "host")):
        head, optimizer = head_of(faces, CASES[case], "bfloat16", first)  # type: ignore[arg-type]
        train(head, faces, optimizer, batches[:4])
        other, other_optimizer = head_of(faces, CASES[case], "bfloat16", second)  # type: ignore[arg-type]
        load_center_state(other, other_optimizer, [copy.deepcopy(center_state(head, optimizer))])
        train(other, faces, other_optimizer, batches[4:])
        tables.append(other.stored_centers.detach())
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])


def test_a_copied_head_goes_on_by_itself() -> None:
    faces = Faces(STEADY, CLASSES, DIM)
    head, optimizer = head_of(faces, CASES["screened"], "float32", "host")
    train(head, faces, optimizer, [faces.batch(faces.centers, BATCH)])
    twin = copy.deepcopy(head)
    before = twin.centers.detach().clone()
    train(head, faces, optimizer, [faces.batch(faces.centers, BATCH)])
    assert torch.equal(twin.centers, before)
    x, identities = faces.batch(faces.centers, BATCH)
    assert twin(x, identities).isfinite()


def test_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="center_memory is one of device, host, got 'disk'"):
        PartialFC(3, 4, center_memory="disk")  # type: ignore[arg-type]
    head = PartialFC(3, 4, center_memory="host")
    assert head.to("cpu") is head
    with pytest.raises(ValueError, match="centers stay in host memory, and the head on cpu: make it on meta"):
        head.to("meta")
