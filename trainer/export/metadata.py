"""What an exported file says of itself.

Paths are cut to their last part: a published file tells nothing of the machine that it comes from.
"""

import json
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from trainer.export.source import Source
from trainer.export.targets import INPUT, OUTPUT, Target
from trainer.export.thresholds import Calibration

NO_LICENCE = (
    "not stated (pfc itself is Apache-2.0; what the weights may be used for depends on the images they were trained on)"
)
PAPERS = {
    "sface": "Zhong et al., SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition, IEEE TIP 2021, "
    "arXiv 2205.12010",
    "arcface": "Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019, "
    "arXiv 1801.07698",
    "cosface": "Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018, arXiv 1801.09414",
}
ARCFACE_TORCH = {"mobilefacenet": "mbf", **{f"iresnet{depth}": f"r{depth}" for depth in (18, 34, 50, 100)}}


def describe(
    source: Source, target: Target, calibrations: Sequence[Calibration], *, data_set: str | None, licence: str | None
) -> dict[str, Any]:
    """Plain values by name; what is not known is left out."""
    config, trained = source.config, source.description
    found = {
        "producer": f"pfc {version('pfc')}",
        "commit": own_commit(),
        "backbone": source.backbone.name,
        "embedding_dim": source.backbone.embedding_dim,
        "image_size": source.image_size,
        "normalization": source.backbone.normalization,
        "arcface_torch": arcface_torch_name(source),
        "target": target.name,
        "input": f"{INPUT}: {target.described}" if target.name != "torch" else target.described,
        "output": f"{OUTPUT + ': ' if target.name != 'torch' else ''}float32 [N, {source.backbone.embedding_dim}], "
        "not normalised; compare by cosine",
        "data_set": data_set or (_names(config.data.records) if config else None),
        "identities": trained.num_classes if trained else None,
        "identities_sha256": config.data.identities_sha256 if config else None,
        "step": trained.step if trained else None,
        "samples": trained.samples if trained else None,
        "loss": config.head.loss if config else None,
        "paper": PAPERS.get(config.head.loss) if config else None,
        "licence": licence or NO_LICENCE,
        "thresholds": [calibration.plain() for calibration in calibrations] or None,
        "config": _without_paths(config.to_dict()) if config else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def as_text(described: dict[str, Any]) -> dict[str, str]:
    """For ONNX, whose metadata are texts: numbers as they are written, tables and lists as JSON."""
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
        for name, value in described.items()
    }


def arcface_torch_name(source: Source) -> str | None:
    """What ``get_model`` of InsightFace's arcface_torch calls this network; None where it has none like it."""
    patch_size = source.backbone.patch_size
    if source.backbone.normalization == "group" or source.image_size != 112 or patch_size not in (None, 9):
        return None
    return ARCFACE_TORCH.get(source.backbone.name, source.backbone.name)


def own_commit() -> str | None:
    """The commit of this program: of the checkout it runs from, or the one that pip installed; None where unknown."""
    try:
        installed = distribution("pfc").read_text("direct_url.json")
        if installed and (found := json.loads(installed).get("vcs_info", {}).get("commit_id")):
            return str(found)
    except (PackageNotFoundError, ValueError):
        pass
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or not (root / "pyproject.toml").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout.strip() or None if ended.returncode == 0 else None


def _names(paths: Path | tuple[Path, ...]) -> str:
    several = paths if isinstance(paths, tuple) else (paths,)
    return ", ".join(path.parent.name if path.name == "train.rec" else path.name for path in several)


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_paths(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value
