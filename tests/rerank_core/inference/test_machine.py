"""The machine's name: what decides which engine is fastest, read from made files of a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerank_core.inference import machine
from rerank_core.inference.machine import cores

X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9R14
stepping\t: 1
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni_not amx_int8
bogomips\t: 5200.00

processor\t: 1
model name\t: another
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd bf16 i8mm
CPU implementer\t: 0x41
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the root of the file system."""
    monkeypatch.setattr(machine, "Path", lambda path: tmp_path / path.lstrip("/"))
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    (tmp_path / "proc").mkdir()
    return tmp_path


def write_gpu(kernel: Path, slot: str, text: str) -> None:
    folder = kernel / "proc" / "driver" / "nvidia" / "gpus" / slot
    folder.mkdir(parents=True)
    (folder / "information").write_text(text)


def test_this_machine_has_a_name_that_stays() -> None:
    name = machine.machine_name()
    assert f"{cores()} cores" in name.split(", ")
    assert machine.machine_name() == name


def test_the_name_holds_what_decides_an_engines_speed(kernel: Path) -> None:
    (kernel / "proc" / "cpuinfo").write_text(X86)
    write_gpu(kernel, "0000:00:1e.0", "Model: \t\t NVIDIA L4\nIRQ:   \t\t 35\n")
    expected = f"AMD EPYC 9R14, 25/17/1, avx2 avx512f amx_int8, {cores()} cores, NVIDIA L4"
    assert machine.machine_name() == expected


def test_an_arm_processor_is_told_by_its_maker_and_its_features(kernel: Path) -> None:
    (kernel / "proc" / "cpuinfo").write_text(ARM)
    assert machine.machine_name() == f"aarch64, 0x41, i8mm bf16, {cores()} cores"


def test_a_system_without_such_files_has_a_name(kernel: Path) -> None:
    assert machine.machine_name() == f"aarch64, {cores()} cores"


def test_without_a_driver_there_is_no_gpu(kernel: Path) -> None:
    assert machine.gpu_name() == ""
    write_gpu(kernel, "0000:00:1e.0", "IRQ: 35\n")
    assert machine.gpu_name() == ""


def test_the_first_gpu_is_named(kernel: Path) -> None:
    write_gpu(kernel, "0000:00:1f.0", "Model: NVIDIA T4\n")
    write_gpu(kernel, "0000:00:1e.0", "Model: NVIDIA L4\n")
    assert machine.gpu_name() == "NVIDIA L4"
