"""``pfc export MODEL --target onnx|opencv|torch --output FILE``: a trained network as a file for other programs."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from trainer.complaint import complain
from trainer.errors import ConfigError, ExitCode

DESCRIPTION = """\
Write a trained network as one file, load it again and compare its embeddings with the network's own; a file that
differs is not written. Its output is one embedding [N, D] of each image, not normalised: compare them by cosine."""

EPILOG = """\
targets:
  onnx    NAME.onnx for ONNX Runtime and InsightFace: aligned faces, RGB, (value - 127.5) / 127.5
  opencv  NAME.onnx for cv2.FaceRecognizerSF (4.14 and newer, 5): takes 0 to 255 and normalises in the graph
  torch   NAME.pt: state dict, in the names of InsightFace's arcface_torch; NAME.pt2: torch.export program, which runs
          without pfc; either with NAME.json about it

The file holds what it was made of: data set, configuration, step, commit, licence, thresholds. Thresholds are
calibrated on --pairs, or taken from the run's own verification of this checkpoint (with flip test: say which).
trainer/export/README.md shows how to use each kind."""


def add_parser(subparsers: Any) -> None:
    """Add ``export`` to the command line."""
    parser = subparsers.add_parser(
        "export",
        help="a trained network as a file for ONNX Runtime, OpenCV, InsightFace or torch",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="run folder, checkpoint folder or state-dict file (.pt)"
    )
    parser.add_argument("--target", required=True, choices=("onnx", "opencv", "torch"), help="see below")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="NAME.onnx, NAME.pt or NAME.pt2")
    parser.add_argument(
        "--checkpoint", metavar="WHICH", help="of a run folder: newest (default), best, or a step, such as 12000"
    )
    parser.add_argument(
        "--pairs", type=Path, action="append", default=[], metavar="FILE",
        help="verification set (.bin) to calibrate thresholds on; repeatable",
    )  # fmt: skip
    parser.add_argument("--data-set", metavar="TEXT", help="name to give the training data (default: their folder's)")
    parser.add_argument("--licence", metavar="TEXT", help="what the weights may be used for (default: not stated)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    from trainer.export import ExportError, Request, export_model
    from trainer.export.told import told

    for name in ("data_set", "licence"):
        text = getattr(arguments, name)
        if text is not None and not text.strip():
            raise ConfigError(f"--{name.replace('_', '-')}: is empty; leave it out")
    request = Request(
        model=arguments.model,
        target=arguments.target,
        output=arguments.output,
        which=arguments.checkpoint,
        pairs=tuple(arguments.pairs),
        data_set=arguments.data_set,
        licence=arguments.licence,
        overwrite=arguments.overwrite,
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    former = signal.signal(signal.SIGTERM, signal.default_int_handler)  # clears up, as Ctrl-C does
    try:
        print(told(export_model(request, say)))
    except ExportError as error:
        return complain(str(error), ExitCode.FAILURE)
    finally:
        signal.signal(signal.SIGTERM, former)
    return ExitCode.DONE
