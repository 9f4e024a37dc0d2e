"""What `doctor` prints fits into a terminal of 80 columns, whatever libraries say."""

from __future__ import annotations

from typing import Any

from autotune.distribution import pip_install
from autotune.present.doctor import WIDTH, as_text


def found(**providers: Any) -> dict[str, Any]:
    plain = {"runs": False, "precisions": [], "does_not_run": {}, "devices": [], "install": pip_install("x")}
    return {
        "hardware": {"processor": "A Processor With a Long Name @ 3.20 GHz", "cores": 64, "system": "Linux x86_64", "memory_mb": 1},
        "python": "3.11.0", "packages": {f"package-{n}": "1.2.3" for n in range(20)}, "free_memory_mb": 1, "free_disk_mb": 1,
        "cache": "/a/folder" * 20, "problems": ["a problem that is told in many words " * 5], "ready": False,
        "providers": {name: plain | probe for name, probe in providers.items()},
    }  # fmt: skip


def test_every_line_fits_into_a_terminal() -> None:
    text = as_text(
        found(
            cpu={"runs": True, "precisions": ["fp32", "int8", "int4"], "installed": True},
            webgpu={
                "runs": True, "installed": True, "precisions": ["fp32", "int4 (use_webgpu_fp32)"],
                "devices": ["A Graphics Card of the Largest Kind With Much Memory (gpu, driver 0x1400000)"],
                "does_not_run": {"fp16": "Program Gather requires f16 but the device does not support it. " * 4},
            },
            openvino={"installed": True, "why": "provider openvino offers no device on this machine: it needs " * 3},
            NvTensorRtRtx={"installed": False, "why": "is not installed"},
        )
    )  # fmt: skip
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "provider webgpu: runs (fp32, int4 (use_webgpu_fp32))" in text
    assert "  device 0: A Graphics Card" in text
    assert "  not fp16: Program Gather" in text
    assert "providers that are not installed here:\n  NvTensorRtRtx: pip install" in text
    assert text.endswith("not ready: see the problems above")


def test_a_command_that_installs_stays_in_one_line_so_that_it_can_be_copied() -> None:
    command = f'pip install "autotune-genai[tensorrt-rtx]" -c {"/a long/folder" * 9}/constraints.txt'
    plain = found(NvTensorRtRtx={"installed": False, "install": command})
    text = as_text(plain | {"problems": [f"onnxruntime-genai is not installed: {command}"]})
    lines = [line.strip() for line in text.splitlines()]
    assert lines.count(command) == 2
    at = lines.index("providers that are not installed here:")
    assert lines[at + 1 : at + 5] == [
        "NvTensorRtRtx:",
        command,
        "problem: onnxruntime-genai is not installed:",
        command,
    ]
