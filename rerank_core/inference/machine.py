"""The machine's name, by the features that decide which engine is fastest on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# As x86 and ARM name them in /proc/cpuinfo.
_FAMILY = ("cpu family", "model", "stepping", "CPU implementer", "CPU part")
_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "sve",
    "sve2",
    "i8mm",
    "bf16",
)


def machine_name() -> str:
    """The processor, its features that decide an engine's speed, the cores this process may use, and the GPU."""
    name, family, flags = platform.processor() or platform.machine(), "", ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line.partition(":") for line in info.read_text().split("\n\n")[0].splitlines()]
        fields = {key.strip(): value.strip() for key, _, value in lines}
        name = fields.get("model name", name)
        family = "/".join(fields[key] for key in _FAMILY if key in fields)
        known = (fields.get("flags") or fields.get("Features") or "").split()
        flags = " ".join(flag for flag in _FEATURES if flag in known)
    return ", ".join(part for part in (name, family, flags, f"{cores()} cores", gpu_name()) if part)


def gpu_name() -> str:
    """The first NVIDIA GPU by its driver, "" if there is none; needs no inference engine."""
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in file.read_text().splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return ""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
