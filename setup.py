"""What is compiled: the head's kernels, once per instruction set, and what the loader does to every image.

Where there is no compiler the package works without them, slower.
"""

import platform

from setuptools import Extension, setup

SOURCES = [f"partial_fc/native/{name}.cpp" for name in ("rows", "scores", "sample", "tiles")]
HEADERS = [f"partial_fc/native/{name}.h" for name in ("mathematics", "half", "loss", "rows")]
# Vectorised square roots and branches need the two -fno; sums are reordered only where the source says so.
FLAGS = ["-O3", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
LEVELS = {"base": []}
if platform.machine() in ("x86_64", "AMD64"):
    LEVELS |= {"v3": ["-march=x86-64-v3"], "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}

setup(
    ext_modules=[
        Extension(
            f"partial_fc._kernels_{level}",
            SOURCES,
            depends=HEADERS,
            extra_compile_args=[*FLAGS, *flags],
            extra_link_args=["-fopenmp"],
            language="c++",
            optional=True,
        )
        for level, flags in LEVELS.items()
    ]
    + [
        Extension(
            "data_pipeline._native",
            [f"data_pipeline/native/{name}.cpp" for name in ("read_rows", "to_planes")],
            extra_compile_args=["-O3", "-std=c++17"],
            language="c++",
            optional=True,
        )
    ]
)
