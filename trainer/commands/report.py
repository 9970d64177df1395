"""``pfc report RUN_DIR``: one self-contained HTML page about a run; ``--prometheus URL``: dashboards as pictures."""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

from trainer.errors import ConfigError, ExitCode

DESCRIPTION = """\
Write one self-contained HTML page about a run, finished or not, and print its path. With --prometheus, draw the
dashboards of a job instead, from what the server has scraped: one PNG each."""
_OF_PROMETHEUS = ("job", "dashboard", "dashboards", "from", "to", "last")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc report`` to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="write an HTML page with curves, ROC and the worst pairs of a run, or its dashboards as pictures",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_dir", metavar="RUN_DIR", type=Path, nargs="?", help="folder of the run (it holds run.toml)"
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        type=Path,
        help="the page (default: RUN_DIR/report.html), or the folder of the pictures (default: dashboards)",
    )
    drawn = parser.add_argument_group("dashboards as pictures")
    drawn.add_argument("--prometheus", metavar="URL", help="server to ask, such as http://prometheus:9090")
    drawn.add_argument("--job", metavar="NAME", help="needed where the server knows several")
    drawn.add_argument(
        "--dashboard", metavar="NAME", action="append", help="this one (repeat it for more; default: all)"
    )
    drawn.add_argument("--dashboards", metavar="DIR", type=Path, help="Grafana's JSON files (default: those of pfc)")
    drawn.add_argument("--from", metavar="TIME", help="2026-01-31T14:00 (UTC), seconds since 1970, or now-2h")
    drawn.add_argument("--to", metavar="TIME", help="the same (default: now)")
    drawn.add_argument("--last", metavar="TIME", help="90s, 15m, 1h30m, 7d (default: what the last hour has)")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Write the page, or the pictures, and print their paths."""
    if args.prometheus is not None:
        return _draw(args)
    given = [f"--{name}" for name in _OF_PROMETHEUS if getattr(args, name) is not None]
    if given:
        raise ConfigError(f"{given[0]} is about dashboards as pictures: give --prometheus URL, too")
    if args.run_dir is None:
        raise ConfigError("pfc report: give RUN_DIR, the folder of a run, or --prometheus URL")
    from trainer.report.page import write_report  # matplotlib is slow to import: other commands do without it

    print(write_report(args.run_dir, args.output, now=datetime.now(UTC)))
    return ExitCode.DONE


def _draw(args: argparse.Namespace) -> int:
    from trainer.dashboards import Request, draw_dashboards

    if args.run_dir is not None:
        raise ConfigError(f"{args.run_dir}: RUN_DIR and --prometheus ask for different reports: leave one out")
    request = Request(
        address=args.prometheus,
        output=args.output or Path("dashboards"),
        job=args.job,
        names=tuple(args.dashboard or ()),
        folder=args.dashboards,
        start=getattr(args, "from"),
        end=args.to,
        last=args.last,
    )
    for path in draw_dashboards(request, now=time.time()):
        print(path, flush=True)
    return ExitCode.DONE
