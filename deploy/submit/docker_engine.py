"""Docker's command line, and what it complains of in one clear line."""

import re
import subprocess
from collections.abc import Iterator

from deploy.launch.exit_codes import BAD_INPUT, FAILURE
from deploy.submit.errors import SubmitError

ANSWER_SECONDS = 120.0  # of anything that does not wait for a run; a busy engine takes its time

# What Docker's errors contain, what to say ({0}: what the pattern caught), and the exit code.
_KNOWN = (
    (
        r"permission denied while trying to connect .*? at (\S+?):?(?:\s|$)",
        "no permission to use Docker's socket {0}: join the group that owns it, or use sudo",
        FAILURE,
    ),
    (
        r"(?:Cannot connect to the Docker daemon|failed to connect to the docker API) at (\S+?)[.;]?\s",
        "no Docker engine answers at {0}: start it, or set DOCKER_HOST",
        FAILURE,
    ),
    (
        r"(?:No such image|Unable to find image):? '?([^\s']+)",
        "image {0} is not on this engine: build it (docker/README.md), or docker pull it",
        BAD_INPUT,
    ),
    (
        r"bind source path does not exist: (.+?)\.?(?:\n|$)",
        "mount {0}: there is no such file or folder on the engine's machine; make it, or mend the path",
        BAD_INPUT,
    ),
    (
        r'container name "/?(\S+?)" is already in use',
        "container {0} exists and is none of this run: choose another name, or docker rm it",
        BAD_INPUT,
    ),
    (
        r"network with name (\S+) already exists",
        "network {0} exists and is none of this run: choose another name, or docker network rm it",
        BAD_INPUT,
    ),
    (
        r"(?:Bind for|listen tcp4?) (\S+?):? (?:failed: port is already allocated|bind: address already in use)",
        "{0} is in use: choose another metrics.port, or leave --publish-metrics out",
        BAD_INPUT,
    ),
    (
        r"could not select device driver .*(gpu)",
        "the engine cannot give a {0} to a container: install the NVIDIA Container Toolkit, or submit without GPUs",
        FAILURE,
    ),
)


def docker(*words: str, deadline_seconds: float = ANSWER_SECONDS) -> str:
    """What ``docker WORDS...`` prints. Raises SubmitError, one line, where it fails."""
    try:
        done = subprocess.run(
            ["docker", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline_seconds,
            check=False,
        )
    except FileNotFoundError:
        raise SubmitError("docker: no such program; install Docker's command line", FAILURE) from None
    except subprocess.TimeoutExpired:
        raise SubmitError(f"docker {words[0]}: no answer within {deadline_seconds:g} s", FAILURE) from None
    if done.returncode != 0:
        raise complaint(words[0], done.stderr)
    return done.stdout


def lines_of(*words: str) -> Iterator[str]:
    """Lines of what ``docker WORDS...`` prints, while it prints them; the process ends with the iterator."""
    with subprocess.Popen(
        ["docker", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None, "it is a pipe"
        try:
            for line in process.stdout:
                yield line.rstrip("\n")
        finally:
            process.terminate()


def complaint(command: str, printed: str) -> SubmitError:
    """Of what Docker printed on its error output."""
    for pattern, text, code in _KNOWN:
        if match := re.search(pattern, printed):
            return SubmitError(text.format(*match.groups()), code)
    lines = [
        line for line in printed.splitlines() if line.strip() and not line.startswith(("Run 'docker", "See 'docker"))
    ]
    said = re.sub(r"^(docker: )?(Error response from daemon: )?", "", " ".join(lines))
    return SubmitError(f"docker {command}: {said[:500] or 'failed, and does not say why'}", FAILURE)


def is_of_another_machine(host: str | None) -> bool:
    """Whether DOCKER_HOST leads away from here, where neither the configuration nor the folders are."""
    return host is not None and not host.startswith(("unix://", "fd://", "npipe://"))
