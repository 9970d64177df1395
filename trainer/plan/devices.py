"""What a device can do: data sheets of common GPUs, and one's own values.

Memory in bytes, bandwidths in bytes/s, arithmetic in operations/s without sparsity. interconnect: of one GPU to the
others of its node, one direction; network: of one GPU to other nodes, one direction, as machines with eight of them are
commonly built (one 100 to 400 Gbit/s port for one or two GPUs): check your own.
"""

import difflib
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError

GB, TERA = 1e9, 1e12
GIB = float(1 << 30)


@dataclass(frozen=True)
class Device:
    """One device, as its maker describes it. source: where the numbers are from. like: whose generation it is, where it
    has a name of its own.
    """

    name: str
    memory: float
    bandwidth: float
    fp32: float
    tf32: float
    bf16: float
    int8: float
    interconnect: float
    network: float
    source: str
    like: str = ""

    @property
    def is_cpu(self) -> bool:
        """Its memory is the host's, and batches are decoded by the same cores."""
        return self.name == "cpu"


def _gpu(
    name: str, gib: float, gb_s: float, tflops: tuple[float, float, float, float], link: float, net: float, source: str
) -> Device:
    fp32, tf32, bf16, int8 = (each * TERA for each in tflops)
    return Device(name, gib * GIB, gb_s * GB, fp32, tf32, bf16, int8, link * GB, net * GB, source)


# TFLOP/s in the order fp32, tf32, bf16, int8; where a generation has no tf32 or bf16, what PyTorch uses in its place.
DEVICES = {
    each.name: each
    for each in (
        _gpu("h200", 141, 4800, (67, 494, 989, 1979), 450, 50, "NVIDIA H200 Tensor Core GPU data sheet (SXM)"),
        _gpu("h100", 80, 3350, (67, 494, 989, 1979), 450, 50, "NVIDIA H100 Tensor Core GPU data sheet (SXM)"),
        _gpu("h100-pcie", 80, 2000, (51, 378, 756, 1513), 64, 25, "NVIDIA H100 Tensor Core GPU data sheet (PCIe)"),
        _gpu("a100-80g", 80, 2039, (19.5, 156, 312, 624), 300, 25, "NVIDIA A100 80GB data sheet (SXM)"),
        _gpu("a100-40g", 40, 1555, (19.5, 156, 312, 624), 300, 25, "NVIDIA A100 40GB data sheet (SXM)"),
        _gpu("v100-32g", 32, 900, (15.7, 15.7, 125, 62.8), 150, 12.5, "NVIDIA V100 data sheet (SXM2; fp16 for bf16)"),
        _gpu("v100-16g", 16, 900, (15.7, 15.7, 125, 62.8), 150, 12.5, "NVIDIA V100 data sheet (SXM2; fp16 for bf16)"),
        _gpu("l40s", 48, 864, (91.6, 183, 362, 733), 32, 12.5, "NVIDIA L40S data sheet"),
        _gpu("l4", 24, 300, (30.3, 60, 121, 242), 32, 6.25, "NVIDIA L4 data sheet"),
        _gpu("a10", 24, 600, (31.2, 62.5, 125, 250), 32, 6.25, "NVIDIA A10 data sheet"),
        _gpu("t4", 16, 320, (8.1, 8.1, 65, 130), 16, 6.25, "NVIDIA T4 data sheet (fp16 for bf16)"),
        _gpu("rtx4090", 24, 1008, (82.6, 82.6, 165, 661), 32, 1.25, "NVIDIA Ada GPU architecture white paper"),
        _gpu("rtx3090", 24, 936, (35.6, 35.6, 71, 284), 32, 1.25, "NVIDIA GA102 GPU architecture white paper"),
        # Two AVX-512 cores at 3 GHz; a machine of one's own is measured: pfc plan --calibrate.
        Device("cpu", 16 * GIB, 20 * GB, 0.15 * TERA, 0.15 * TERA, 0.15 * TERA, 0.6 * TERA, 5 * GB, 1.25 * GB,
               "two cores of a server, rounded; measure yours with pfc plan --calibrate"),
    )
}  # fmt: skip
NUMBERS = tuple(field.name for field in fields(Device) if field.name not in ("name", "source", "like"))


def device_named(name: str) -> Device:
    """Raises ConfigError, naming the nearest, for a name that is not in the table."""
    if name not in DEVICES:
        begins = [known for known in DEVICES if known.startswith(name.lower())]
        nearest = (begins or difflib.get_close_matches(name.lower(), DEVICES, n=1, cutoff=0.0))[0]
        raise ConfigError(
            f"--device {name}: unknown; the nearest known one is '{nearest}' (known: {', '.join(DEVICES)}); "
            "others by --device-file FILE.toml"
        )
    return DEVICES[name]


def read_device(path: Path) -> Device:
    """A TOML file: ``like`` names a device of the table, further keys replace its values (GiB, GB/s, TFLOP/s).

    Raises ConfigError, one line, for a file that cannot be read, unknown keys and impossible numbers.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--device-file {path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--device-file {path}: not readable as TOML ({error})") from None
    base = values.pop("like", "h100")
    if base not in DEVICES:
        raise ConfigError(f"--device-file {path}: like = {base!r} is none of {', '.join(DEVICES)}")
    name = str(values.pop("name", path.stem))
    units = {key: UNITS[key][0] for key in NUMBERS}
    known = [f"{key}_{unit}" for key, unit in units.items()]
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(key, [*known, "like", "name"], n=1, cutoff=0.0)[0]
            raise ConfigError(f"--device-file {path}: unknown key '{key}'; the nearest known key is '{nearest}'")
    given = {key: values[f"{key}_{unit}"] for key, unit in units.items() if f"{key}_{unit}" in values}
    return with_values(replace(DEVICES[base], name=name, source=str(path), like=base), given, f"--device-file {path}: ")


UNITS = {
    "memory": ("gib", GIB),
    "bandwidth": ("gb_s", GB),
    "fp32": ("tflops", TERA),
    "tf32": ("tflops", TERA),
    "bf16": ("tflops", TERA),
    "int8": ("tops", TERA),
    "interconnect": ("gb_s", GB),
    "network": ("gb_s", GB),
}
"""Unit of each number for users, and what it is worth."""


def with_values(device: Device, given: dict[str, Any], where: str) -> Device:
    """``device`` with numbers in users' units. Raises ConfigError for what is no positive number."""
    found: dict[str, float] = {}
    for key, value in given.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0.0 < value < 1e9:
            raise ConfigError(f"{where}{key} must be a positive number of {UNITS[key][0]}, got {value!r}")
        found[key] = float(value) * UNITS[key][1]
    return replace(device, **found) if found else device  # type: ignore[arg-type]  # none of them is text
