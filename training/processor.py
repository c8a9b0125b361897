"""What a process that works on a CPU begins with: the same arithmetic on every x86-64 processor, and a quicker malloc.

torch's libraries choose their kernels by the processor, and each kernel rounds in an order of its own. Pinned, they
take what every x86-64 processor of the last ten years has; MKL_CBWR knows nothing newer that is the same on both makes.
Work in bfloat16 is not pinned: its instructions are newer, and it takes 20 times as long without.
"""

import importlib.metadata
import os
import platform
from collections.abc import Iterable

PINS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}


def pinned_arithmetic() -> dict[str, str]:
    """Environment variables for new processes, in which torch reads them when it is imported; the user's own stay."""
    known = platform.machine().lower() in ("x86_64", "amd64")
    return {name: os.environ.get(name, value) for name, value in PINS.items()} if known else {}


def can_be_pinned(precisions: Iterable[str]) -> bool:
    """Whether work in these precisions, of `Run.precision`, takes no longer when it is pinned."""
    return set(precisions) <= {"float32"}


def pins() -> dict[str, str]:
    """The value of each pin in this process, for the record, with a remark where it was not honoured."""
    import torch

    found = {name: os.environ[name] for name in PINS if name in os.environ}
    capability, wanted = torch.backends.cpu.get_cpu_capability(), found.get("ATEN_CPU_CAPABILITY", "")
    if wanted and wanted.upper() != capability:
        found["ATEN_CPU_CAPABILITY"] = f"{wanted}, not honoured: {capability}"
    if "MKL_CBWR" in found and not torch.backends.mkl.is_available():
        found["MKL_CBWR"] += ", not honoured: torch was built without MKL"
    return found


def quicker_malloc() -> dict[str, str]:
    """The variable by which new processes use mimalloc, if cmeel-mimalloc is installed; their results are the same."""
    try:
        place = importlib.metadata.distribution("cmeel-mimalloc").locate_file("cmeel.prefix/lib/libmimalloc.so")
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {} if os.environ.get("LD_PRELOAD") or not os.path.exists(str(place)) else {"LD_PRELOAD": str(place)}
