"""Skipped images in the Prometheus registry and in the log: every one counted, few lines."""

from pathlib import Path
from typing import Any

import pytest
import structlog
from damaged_images import SIZE, cut_in_half, not_an_image, write_with_bad
from prometheus_client import CollectorRegistry, generate_latest

from data_pipeline import make_loader
from data_pipeline.errors import REASONS
from trainer.metrics import TrainingMetrics
from trainer.skipped_images import LINE_EVERY_SECONDS, SkippedImages

pytestmark = pytest.mark.unit


def test_every_reason_is_exported_from_the_start() -> None:
    registry = CollectorRegistry()
    TrainingMetrics(registry)
    text = generate_latest(registry).decode()
    for reason in REASONS:
        assert f'pfc_data_skipped_records_total{{reason="{reason}"}} 0.0' in text


def test_counts_go_to_the_registry_and_few_lines_to_the_log(tmp_path: Path) -> None:
    records = write_with_bad(tmp_path, 20, {3: cut_in_half, 4: cut_in_half, 12: not_an_image})
    loader = make_loader(records, batch_size=5, decoder="cpu", image_size=SIZE, bad_images="skip", order="sequential")
    registry, lines, now = CollectorRegistry(), [], [100.0]

    def keep(_: Any, method: str, event: dict[str, Any]) -> str:
        lines.append((method, event))
        raise structlog.DropEvent

    log = structlog.wrap_logger(None, processors=[keep])
    skipped = SkippedImages(loader, TrainingMetrics(registry).skipped_records, log, clock=lambda: now[0])

    def exported(reason: str) -> float | None:
        return registry.get_sample_value("pfc_data_skipped_records_total", {"reason": reason})

    skipped.update()
    assert lines == []
    for epoch in range(1, 4):
        for _ in loader:
            skipped.update()
            now[0] += 1
        assert exported("truncated") == 2 * epoch
        assert exported("undecodable") == epoch
        assert skipped.counts == {"truncated": 2 * epoch, "undecodable": epoch}
    first = [event for _, event in lines if event["event"] == "skipped_image"]
    assert [event["reason"] for event in first] == ["truncated", "undecodable"]
    assert "image 3 (identity 1; " in first[0]["image"]
    assert "train.rec, record 4 at byte" in first[0]["image"]
    assert len(lines) == 3  # both reasons, and one line of counts within a minute
    now[0] += LINE_EVERY_SECONDS
    list(loader)
    skipped.update()
    assert lines[-1][1] == {"event": "skipped_images", "different": 3, "truncated": 8, "undecodable": 4}
    assert len(lines) == 4
