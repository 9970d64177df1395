"""The options that one target alone has: kept with a run, so that the target can be made again to ask about it."""

import argparse
from typing import Any

from deploy.submit.registry import Entry
from deploy.submit.target import Target
from deploy.submit.targets import load_target


def options_of(target: type[Target], arguments: argparse.Namespace) -> dict[str, Any]:
    """Of ``arguments``, in a form that JSON can hold."""
    return {action.dest: _plain(getattr(arguments, action.dest)) for action in _actions(target)}


def target_of(entry: Entry) -> Target:
    """The target that the run was sent to, with the options it was sent with; new ones have their defaults."""
    target = load_target(entry.target)
    values = {}
    for action in _actions(target):
        value = entry.options.get(action.dest, action.default)
        # As the command line's text they were converted; JSON has them as text again.
        convert = action.type if callable(action.type) else None
        if convert is not None and isinstance(value, str):
            value = convert(value)
        elif convert is not None and isinstance(value, list):
            value = [convert(each) if isinstance(each, str) else each for each in value]
        values[action.dest] = value
    return target.from_arguments(argparse.Namespace(**values))


def _actions(target: type[Target]) -> list[argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    target.add_arguments(parser)
    return [action for action in parser._actions if action.dest != argparse.SUPPRESS]


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
