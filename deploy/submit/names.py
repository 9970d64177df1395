"""What a run is called: valid for every target, so that it can move from one to another."""

import re

from deploy.submit.errors import SubmitError

LONGEST = 40
_VALID = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?", re.ASCII)


def check_name(name: str, option: str = "--name") -> str:
    """``name`` itself. Raises SubmitError where it is none, with one that would be. option: that gave it."""
    if _VALID.fullmatch(name) is None or len(name) > LONGEST:
        raise SubmitError(
            f"{option} {name}: use lower-case letters, digits and '-', a letter first, at most {LONGEST} characters; "
            f"{made_valid(name)} would do"
        )
    return name


def made_valid(text: str) -> str:
    """The nearest name: of a run's folder, for runs that were given none."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower(), flags=re.ASCII).strip("-")
    if not name[:1].isalpha():
        name = f"run-{name}"
    return name[:LONGEST].rstrip("-")
