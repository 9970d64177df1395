"""From a run, a checkpoint or a state dict to a file that was loaded again and does the same."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_pipeline.pairs import read_pairs
from trainer.errors import ConfigError
from trainer.evaluation import load_results
from trainer.export.graph import make_graph, set_metadata
from trainer.export.metadata import as_text, describe
from trainer.export.output import check_output, publish, sidecar_of
from trainer.export.sample_images import SampleImages, draw_samples
from trainer.export.self_check import Check, check_onnx
from trainer.export.source import Source, load_source
from trainer.export.targets import Target, TargetName, check_suffix, make_target
from trainer.export.thresholds import Calibration, calibrate, judge
from trainer.export.torch_files import check_torch, program_bytes, state_dict_bytes
from trainer.run_verification import FOLDER


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is wanted. which: of a run's checkpoints. pairs: to calibrate thresholds on."""

    model: Path
    target: TargetName
    output: Path
    which: str | None = None
    pairs: tuple[Path, ...] = ()
    data_set: str | None = None
    licence: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written: files, the last of them the model; what it says of itself; how it was checked, and on what."""

    files: tuple[Path, ...]
    nbytes: int
    described: dict[str, Any]
    calibrations: tuple[Calibration, ...]
    checks: tuple[Check, ...]
    samples: SampleImages


def export_model(request: Request, say: Callable[[str], None] = lambda line: None) -> Exported:
    """Export; ``say`` gets a line before what takes long.

    Raises:
        ConfigError, DataError: the model, the pairs or the output cannot be used.
        ExportError: the file would not do what the network does.
        OSError: it cannot be written; nothing is left.
    """
    _check_request(request)
    source = load_source(request.model, request.which)
    target = make_target(request.target, source)
    samples = draw_samples(source.config, request.pairs, target.size)
    calibrations = tuple(_calibrations(request, source, target, say))
    described = describe(source, target, calibrations, data_set=request.data_set, licence=request.licence)
    say(f"exporting {source.path}")
    if request.target == "torch":
        whole_program = request.output.suffix == ".pt2"
        content = program_bytes(target, described) if whole_program else state_dict_bytes(source)
        checks = [check_torch(content, request.output.suffix, source, target, samples)]
        sidecar = described | {"sha256": hashlib.sha256(content).hexdigest()}
        text = json.dumps(sidecar, indent=2, ensure_ascii=False) + "\n"
        files = [(sidecar_of(request.output), text.encode()), (request.output, content)]
    else:
        graph = make_graph(target, graph_name=source.backbone.name, version=version("pfc"))
        set_metadata(graph, as_text(described))
        content = graph.SerializeToString()
        checks = check_onnx(content, target, samples)
        files = [(request.output, content)]
    publish(files)
    names = tuple(path for path, _ in files)
    return Exported(names, len(content), described, calibrations, tuple(checks), samples)


def _check_request(request: Request) -> None:
    check_suffix(request.target, request.output)
    outputs = [request.output]
    if request.target == "torch":
        outputs.append(sidecar_of(request.output))
    else:
        missing = [package for package in ("onnx", "onnxscript") if find_spec(package) is None]
        if missing:
            raise ConfigError(
                f"--target {request.target} needs the package {missing[0]}, which is not installed: "
                "pip install 'pfc[export]'"
            )
    for output in outputs:
        check_output(output, source=request.model, overwrite=request.overwrite)
    names = [path.stem for path in request.pairs]
    if len(set(names)) != len(names):
        raise ConfigError(f"--pairs: two files share the name '{max(names, key=names.count)}'; rename one")


def _calibrations(
    request: Request, source: Source, target: Target, say: Callable[[str], None]
) -> Sequence[Calibration]:
    """On the pairs that were given, else what the run itself found at this step; nothing where it has not looked."""
    found = []
    for path in request.pairs:
        pairs = read_pairs(path)
        say(f"calibrating on {path.stem}: {len(pairs)} pairs")
        found.append(calibrate(judge(path.stem, pairs, target), flip_test=False))
    if request.pairs or source.run_folder is None or source.description is None:
        return found
    results = load_results(source.run_folder / FOLDER)
    return [calibrate(each, flip_test=True) for each in results if each.step == source.description.step]
