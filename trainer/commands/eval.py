"""``pfc eval MODEL ...``: a trained, published or untrained network judged by the field's protocols."""

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from data_pipeline.files_together import write_together
from trainer.backbones import BACKBONE_NAMES
from trainer.commands.eval_model import load_model
from trainer.commands.eval_sets import Found, SetOptions, open_sets
from trainer.each_rank import each_rank
from trainer.errors import ConfigError, ExitCode
from trainer.evaluation.extraction import Extractor
from trainer.evaluation.image_sources import Decoding
from trainer.evaluation.operating_points import JANUS_TARGETS
from trainer.evaluation.pair_protocol import Judging
from trainer.evaluation.protocol_store import check_output, protocol_files, protocol_folder
from trainer.evaluation.protocol_text import format_tables
from trainer.evaluation.replicates import BootstrapSettings
from trainer.evaluation.store import result_files
from trainer.evaluation.table import format_table
from trainer.world import World, joined_world

DESCRIPTION = """\
Judge MODEL by verification sets and pair lists (10-fold accuracy, AUC, equal error rate, TAR at FAR), IJB-B/C (1:1 and
1:N) and identification among distractors (MegaFace), always with flip test; thresholds at chosen false accept rates,
confidence intervals by bootstrap over identities. On several ranks:
torchrun --nproc-per-node N -m trainer eval ..."""

EPILOG = """\
images:
  .bin               holds them
  pair lists         paths, below the list's folder or --images; or record indices, of --records
  --ijb FOLDER       FOLDER/loose_crop, aligned by the five landmarks; or aligned crops of the same names in --images;
                     or --records, whose image i is the one of line i
  --identify, --distractors
                     a .rec, a folder with one, or a folder of aligned crops (of probes: one folder for each person)

Aligned crops are square; another size than the model's is resized. trainer/evaluation/README.md has the definitions."""


def add_parser(subparsers: Any) -> None:
    """Add ``eval`` to the command line."""
    parser = subparsers.add_parser(
        "eval",
        help="a model judged by the field's protocols",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="run folder, checkpoint folder or state-dict file (.pt)"
    )
    parser.add_argument(
        "--checkpoint", metavar="WHICH", help="of a run folder: newest (default), best, or a step, such as 12000"
    )
    sets = parser.add_argument_group("what it is judged by")
    several: dict[str, Any] = {"type": Path, "action": "append", "default": []}
    sets.add_argument("--pairs", **several, metavar="FILE", help="verification set (.bin) or pair list; repeatable")
    sets.add_argument("--ijb", **several, metavar="FOLDER", help="IJB-B or IJB-C: meta/ and loose_crop/; repeatable")
    sets.add_argument("--identify", type=Path, metavar="PROBES", help="people to be found among --distractors")
    sets.add_argument("--distractors", type=Path, metavar="PATH", help="strangers, for --identify")
    sets.add_argument(
        "--distractor-counts", type=int, nargs="+", metavar="N", help="default: 10, 100, ... and all there are"
    )
    where = sets.add_mutually_exclusive_group()
    where.add_argument("--images", type=Path, metavar="DIR", help="aligned crops of pair lists and --ijb")
    where.add_argument("--records", type=Path, metavar="PATH", help=".rec of the images of pair lists and --ijb")
    judging = parser.add_argument_group("how")
    judging.add_argument(
        "--far", nargs="+", metavar="RATE", default=list(JANUS_TARGETS),
        help=f"false accept rates to find thresholds for (default {' '.join(JANUS_TARGETS)})",
    )  # fmt: skip
    judging.add_argument("--bootstrap", **number, default=1000, help="replicates for intervals (default 1000; 0: none)")
    judging.add_argument("--confidence", type=float, default=0.95, metavar="C", help="of the intervals (default 0.95)")
    judging.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    judging.add_argument("--batch-size", **number, default=64, help="images per forward pass (default 64)")
    judging.add_argument(
        "--decoder", choices=("auto", "dali", "cpu"), default="auto", help="default: dali if installed"
    )
    judging.add_argument("--threads", **number, help="of decoding per rank; default: cores over the ranks here")
    parser.add_argument("--output", type=Path, metavar="DIR", help="also store results, ROC and DET pictures there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    state_dict = parser.add_argument_group("when MODEL is a state-dict file")
    state_dict.add_argument("--backbone", choices=BACKBONE_NAMES, help="the network the weights belong to")
    state_dict.add_argument("--embedding-dim", type=int, metavar="D", help="length of its embeddings (default 512)")
    state_dict.add_argument("--image-size", type=int, metavar="S", help="side of its input images (default 112)")
    floor = parser.add_argument_group("the floor to compare with")
    floor.add_argument("--untrained", action="store_true", help="the same network with random weights instead")
    floor.add_argument(
        "--seed", type=int, default=0, help="of random weights, order of distractors and bootstrap (default 0)"
    )
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    _check(arguments)
    try:
        with joined_world(
            arguments.device, expected_size=None, timeout_seconds=7200.0, device_setting="--device"
        ) as world:
            return _evaluate(arguments, world)
    except ConfigError as error:
        raise ConfigError(str(error).replace("run.device", "--device")) from None


def _evaluate(arguments: argparse.Namespace, world: World) -> ExitCode:
    sets = each_rank(world, lambda: open_sets(_set_options(arguments)), "evaluation")
    module, image_size, step = each_rank(world, lambda: load_model(arguments, world.device), "evaluation")
    how = Decoding(
        image_size=image_size,
        device=world.device,
        decoder=_decoder(arguments.decoder),
        threads=arguments.threads or max(1, _cores() // world.local_world_size),
    )
    if arguments.untrained:
        each_rank(world, lambda: sets[0].keep_in_range(module, how, arguments.batch_size), "evaluation")
    extractor = Extractor(module, how, batch_size=arguments.batch_size, world=world)
    bootstrap = BootstrapSettings(replicates=arguments.bootstrap, confidence=arguments.confidence, seed=arguments.seed)
    judging = Judging(far=tuple(arguments.far), bootstrap=bootstrap, step=step)
    found: list[Found] = []
    for each in sets:
        if world.is_first:
            print(f"evaluating {each.title}", file=sys.stderr, flush=True)
        found += each.evaluate(module, extractor, judging, world)
    if world.is_first:
        # Stored first, told afterwards, all when all is known: what is refused leaves nothing behind.
        if arguments.output is not None:
            _store(arguments.output, step, found)
        _tell(found, as_json=arguments.json)
    return ExitCode.DONE


def _check(arguments: argparse.Namespace) -> None:
    if not (arguments.pairs or arguments.ijb or arguments.identify):
        raise ConfigError(
            "nothing to judge by: give --pairs FILE, --ijb FOLDER or --identify PROBES --distractors PATH"
        )
    if (arguments.identify is None) != (arguments.distractors is None):
        raise ConfigError("--identify PROBES and --distractors PATH go together: give both")
    if arguments.distractor_counts is not None and arguments.identify is None:
        raise ConfigError("--distractor-counts is for --identify PROBES --distractors PATH")
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size {arguments.batch_size}: must be at least 1; 64 is usual")
    for name, least in (("bootstrap", 0), ("threads", 1), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name} {value}: must be at least {least}")
    if not 0.0 < arguments.confidence < 1.0:
        raise ConfigError(f"--confidence {arguments.confidence}: must lie between 0 and 1; 0.95 is usual")
    for rate in arguments.far:
        try:
            fits = 0.0 < float(rate) <= 1.0
        except ValueError:
            fits = False
        if not fits:
            raise ConfigError(f"--far {rate}: is no rate above 0, up to 1; try 1e-4")
    if arguments.output is not None:
        check_output(arguments.output)


def _set_options(arguments: argparse.Namespace) -> SetOptions:
    return SetOptions(
        pairs=tuple(arguments.pairs),
        ijb=tuple(arguments.ijb),
        identify=arguments.identify,
        distractors=arguments.distractors,
        counts=None if arguments.distractor_counts is None else tuple(arguments.distractor_counts),
        images=arguments.images,
        records=arguments.records,
        seed=arguments.seed,
    )


def _store(folder: Path, step: int, found: list[Found]) -> None:
    # Imported where it runs: matplotlib takes a second that no other evaluation need pay.
    from trainer.report.protocol_charts import protocol_pictures

    drawn = [protocol_pictures(each.protocol.curves) for each in found]
    for each, pictures in zip(found, drawn, strict=True):
        files = {} if each.verification is None else result_files(folder, step, each.verification)
        write_together(files | protocol_files(folder, step, each.protocol, pictures))
        print(f"stored in {protocol_folder(folder, step, each.protocol)}", file=sys.stderr)


def _tell(found: list[Found], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([each.protocol.numbers for each in found], indent=2, allow_nan=False))
        return
    verified = [each.verification for each in found if each.verification is not None]
    parts = [format_table(verified)] if verified else []
    print("\n\n".join([*parts, format_tables([table for each in found for table in each.protocol.tables])]))


def _decoder(name: str) -> Any:
    if name != "auto":
        return name
    try:
        return "dali" if importlib.util.find_spec("nvidia.dali") else "cpu"
    except ModuleNotFoundError:  # no package "nvidia" at all
        return "cpu"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
