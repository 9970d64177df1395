"""How fast a device really is at what a step is made of: a share of its data sheet, or measured by calibration.

Shares of data sheets come from one NVIDIA H100 (SXM): see the constants. They are carried over to other GPUs, so
figures of those are computed, not measured.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from trainer.errors import ConfigError
from trainer.plan.devices import Device

# Measured on one H100, D=512 (partial_fc/README.md): the bare float32 product of 1,000,000 classes and 256 samples
# takes 5.4 ms; a screened step 10.9 ms, at 4,000,000 classes 22.5 ms; a dense one 7.5 times the product. On one H200,
# whose product takes as long, CosFace took 25.6 ms.
PRODUCT_SHARE = 2 * 1e6 * 512 * 256 / 5.4e-3 / 67e12  # of the data sheet's fp32: 0.72
HEAD_FIXED_SECONDS = 7.0e-3  # launches, whatever the size: 10.9 - (22.5 - 10.9) / 3
SCREEN_SHARE = 0.45  # of int8
SCREEN_FLOPS_PER_PAIR = ((22.5e-3 - 10.9e-3) / (3e6 * 256) - 1024 / (SCREEN_SHARE * 1979e12)) * 67e12  # beside int8
DENSE_PRODUCTS = (7.5 * 5.4e-3 - HEAD_FIXED_SECONDS) / 5.4e-3
SOFTMAX_PRODUCTS = (25.6e-3 - HEAD_FIXED_SECONDS) / 5.4e-3
# Not measured.
TENSOR_SHARE = 0.5  # of the data sheet, convolutions and matrix products of a backbone
GROUPED_SHARE = 0.1  # of fp32: depthwise convolutions have no use for tensor cores
BANDWIDTH_SHARE = 0.8
LINK_SHARE = 0.7
LATENCY = 50e-6  # of a collective
GPU_DECODE = 4000.0  # images/s of 112x112 on the GPU and one thread beside it
DISK_WRITE = 1.0e9  # bytes/s
GPU_PROCESS = 1.5 * (1 << 30)  # CUDA context, NCCL, libraries
HOST_PROCESS = 0.75 * (1 << 30)
DEEPSPEED_LIBRARIES = 0.1 * (1 << 30)

PASSES_OVER_WEIGHTS = 8.0  # reads and writes of the gradient's norm and of the optimizer, in weights

FAMILIES = ("mobilefacenet", "iresnet", "vit")
# Measured on one H200 (256 images at 112x112 in MobileFaceNet, 128 in IResNet-50 and ViT-S) over what the shares above
# give of its data sheet; taken for its generation alone.
HOPPER = ("h100", "h200")
HOPPER_FORWARD = {"mobilefacenet": 2.17, "iresnet": 1.77, "vit": 3.67}
HOPPER_BACKWARD = {"mobilefacenet": 3.17, "iresnet": 2.39, "vit": 4.01}
HOPPER_FORWARD16 = {"mobilefacenet": 4.87, "iresnet": 4.19, "vit": 1.16}
HOPPER_BACKWARD16 = {"mobilefacenet": 5.56, "iresnet": 4.27, "vit": 1.55}
# Of the same passes: what PyTorch reserved over what is computed. Taken for all GPUs.
GPU_ACTIVATIONS = {"mobilefacenet": 1.16, "iresnet": 1.46, "vit": 1.0}
GPU_ACTIVATIONS16 = {"mobilefacenet": 1.34, "iresnet": 1.37, "vit": 1.0}
STAGES = ("1", "2", "3")  # of DeepSpeed's ZeRO


@dataclass(frozen=True)
class Rates:
    """Effective figures of one rank while all ranks of its machine work.

    product: operations/s of the head's float32 products. screen: of a screened step, int8 operations/s; pair_seconds:
    further time of a pair of center and sample; row_seconds, sample_seconds: of a center, of a sample (its active
    pairs, its centers' momentum); head_seconds: fixed. dense, softmax, sampled: whole steps as multiples of the bare
    product over the classes that take part. flops, flops16, grouped: of the backbone; forward, backward: measured over
    computed time by family, forward16, backward16: of a 16-bit trunk. bandwidth, link, network, disk: bytes/s. latency:
    of a collective. decode: images/s of one thread. process, host_process: bytes of a process with its libraries,
    deepspeed: of DeepSpeed's, beyond. activations: resident bytes over computed ones, holes of the heap among them,
    activations16: of a 16-bit trunk. update: seconds in which a byte of weights is clipped and moved. between_seconds:
    between steps. By stage of ZeRO, zero_memory: resident bytes beyond DeepSpeed's computed buffers;
    zero_forward, zero_backward, zero_optimizer: seconds a byte of weights beyond DDP's, negative where it takes less.
    overlap: whether exchange and decoding happen beside the arithmetic.
    """

    product: float
    screen: float
    pair_seconds: float
    row_seconds: float
    sample_seconds: float
    head_seconds: float
    dense: float
    softmax: float
    flops: float
    flops16: float
    grouped: float
    bandwidth: float
    link: float
    network: float
    latency: float
    decode: float
    disk: float
    process: float
    host_process: float
    deepspeed: float
    overlap: bool
    update: float
    between_seconds: float = 0.0
    forward: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1.0))
    backward: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1.0))
    forward16: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1.0))
    backward16: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1.0))
    activations: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1.0))
    activations16: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 1.0))
    zero_memory: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    zero_forward: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    zero_backward: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    zero_optimizer: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any, source: str) -> "Rates":
        """The counterpart of :meth:`to_dict`. Raises ConfigError for anything that is not such numbers."""
        known = {each.name for each in fields(cls)}
        if not isinstance(values, dict) or set(values) != known:
            raise ConfigError(f"{source}: not the figures of this version; measure again with pfc plan --calibrate")
        for key, value in values.items():
            numbers = [value]
            if key in PARTS_OF:
                if not isinstance(value, dict) or set(value) != set(PARTS_OF[key]):
                    raise ConfigError(f"{source}: {key} must have a number for each of {', '.join(PARTS_OF[key])}")
                numbers = list(value.values())
            for number in numbers:
                is_number = isinstance(number, int | float) and (key == "overlap" or not isinstance(number, bool))
                least = -1.0 if key in SIGNED else 0.0
                if not is_number or not least <= number < 1e18:
                    raise ConfigError(f"{source}: {key} = {number!r} is no possible figure; measure again")
                if number == 0.0 and key not in ZERO_IS_FINE + SIGNED:
                    raise ConfigError(f"{source}: {key} is 0; measure again")
        return cls(**values)


SIGNED = ("zero_forward", "zero_backward", "zero_optimizer")
PARTS_OF = dict.fromkeys(
    ("forward", "backward", "forward16", "backward16", "activations", "activations16"), FAMILIES
) | dict.fromkeys(("zero_memory", *SIGNED), STAGES)
"""Figures of which there are several, and what of."""
ZERO_IS_FINE = (
    "overlap", "deepspeed", "pair_seconds", "row_seconds", "sample_seconds", "head_seconds", "latency",
    "between_seconds", "zero_memory",
)  # fmt: skip


def family(backbone: str) -> str:
    """Which backbones are alike in how well a device does them."""
    return next(each for each in FAMILIES if backbone.startswith(each.split("_")[0]))


def rates_of(device: Device) -> Rates:
    """From a data sheet; a GPU's by what one H100 and one H200 reached of their own, a CPU's roughly."""
    if device.is_cpu:
        return _cpu(device)
    rates = Rates(
        product=PRODUCT_SHARE * device.fp32,
        screen=SCREEN_SHARE * device.int8,
        pair_seconds=SCREEN_FLOPS_PER_PAIR / device.fp32,
        row_seconds=0.0,
        sample_seconds=0.0,
        head_seconds=HEAD_FIXED_SECONDS,
        dense=DENSE_PRODUCTS,
        softmax=SOFTMAX_PRODUCTS,
        flops=TENSOR_SHARE * device.tf32,
        flops16=TENSOR_SHARE * device.bf16,
        grouped=GROUPED_SHARE * device.fp32,
        bandwidth=BANDWIDTH_SHARE * device.bandwidth,
        link=LINK_SHARE * device.interconnect,
        network=LINK_SHARE * device.network,
        latency=LATENCY,
        decode=GPU_DECODE,
        disk=DISK_WRITE,
        process=GPU_PROCESS,
        host_process=HOST_PROCESS,
        deepspeed=DEEPSPEED_LIBRARIES,
        overlap=True,
        update=PASSES_OVER_WEIGHTS / (BANDWIDTH_SHARE * device.bandwidth),
        activations=dict(GPU_ACTIVATIONS),
        activations16=dict(GPU_ACTIVATIONS16),
    )
    if (device.like or device.name) not in HOPPER:
        return rates
    return replace(
        rates,
        forward=dict(HOPPER_FORWARD),
        backward=dict(HOPPER_BACKWARD),
        forward16=dict(HOPPER_FORWARD16),
        backward16=dict(HOPPER_BACKWARD16),
    )


def _cpu(device: Device) -> Rates:
    """dense and softmax as measured on two cores (partial_fc/README.md); all else is a rough guess: calibrate."""
    return Rates(
        product=0.9 * device.fp32,
        screen=0.9 * device.int8,
        pair_seconds=0.0,
        row_seconds=0.0,
        sample_seconds=0.0,
        head_seconds=5e-3,
        dense=4.1,
        softmax=5.0,
        flops=0.5 * device.fp32,
        flops16=0.5 * device.bf16,
        grouped=0.1 * device.fp32,
        bandwidth=0.5 * device.bandwidth,
        link=0.2 * device.interconnect,
        network=LINK_SHARE * device.network,
        latency=200e-6,
        decode=2000.0,
        disk=0.3e9,
        process=HOST_PROCESS,
        host_process=HOST_PROCESS,
        deepspeed=DEEPSPEED_LIBRARIES,
        overlap=False,
        update=PASSES_OVER_WEIGHTS / (0.5 * device.bandwidth),
    )
