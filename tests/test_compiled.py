"""Every compiled loop is its plain version, whatever CPU code is generated for and however many threads there
are: one of them went wrong on AMD alone. See loops.py."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

WIDE = "avx512f avx512cd avx512bw avx512dq avx512vl"
V3 = "avx2 bmi1 bmi2 f16c fma abm movbe"
TARGETS = {  # what a machine must have to run their code
    "generic": "",
    "x86-64-v3": V3,
    "skylake-avx512": f"{V3} {WIDE} aes pclmulqdq adx",
    "znver4": f"{V3} {WIDE} aes pclmulqdq adx sha_ni gfni vaes vpclmulqdq avx512ifma avx512vbmi "
    "avx512_vbmi2 avx512_vnni "
    "avx512_bitalg avx512_vpopcntdq avx512_bf16",
}


def flags() -> set[str]:
    """What this CPU can do, as Linux names it; nothing where that is not known."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if platform.machine() == "x86_64" and info.exists() else []
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


@pytest.mark.parametrize("target", TARGETS)
def test_every_loop_is_its_plain_version(target, tmp_path):
    missing = set(TARGETS[target].split()) - flags()
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    folder = Path(__file__).parent
    path = os.pathsep.join((str(folder.parent), *filter(None, [os.environ.get("PYTHONPATH")])))
    features = "" if "sse4a" in flags() or target != "znver4" else "-sse4a"  # the name alone says the rest
    env = {
        **os.environ,
        "PYTHONPATH": path,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NUMBA_CPU_NAME": target,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_NUM_THREADS": "3",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    # 0: the threads that OMP_NUM_THREADS gives torch
    done = subprocess.run(
        [sys.executable, str(folder / "loops.py"), *"0123"],
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert any(tmp_path.rglob("*.nbi")), "compiled elsewhere"
