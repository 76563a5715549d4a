"""What is shipped: the wheel holds the configuration and no tests."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_conf_and_no_tests(tmp_path: Path):
    pytest.importorskip("hatchling", reason="hatchling is needed to build a wheel (pip install nif-cli[dev])")
    source = tmp_path / "source"  # a copy: a build must not leave anything in the checkout
    source.mkdir()
    for name in ("nif_cli", "conf", "tests"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = next(archive.read(n).decode() for n in names if n.endswith("entry_points.txt"))
    ours = {p.relative_to(CHECKOUT).as_posix() for p in (CHECKOUT / "conf").rglob("*.yaml")}
    assert {f"nif_cli/{p}" for p in ours} <= set(names)
    assert {"nif_cli/py.typed", "nif_cli/__init__.pyi"} <= set(names)  # types, for who imports it
    assert {p.relative_to(CHECKOUT).as_posix() for p in (CHECKOUT / "nif_cli").rglob("*.py")} <= set(names)
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2, tops  # the package and its dist-info: no tests, no conf at the top
    assert len(names) == len(set(names))
    assert "nif = nif_cli.cli:main" in entry_points

    # unpacked anywhere, its commands know their groups
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from nif_cli.cli import main; main(['train', '--help'])"
    )
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "installed")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "siren" in done.stdout, done.stderr
