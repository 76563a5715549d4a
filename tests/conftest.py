"""What the tests share: a clean place for each test, analytic fields, and the command line in this process.

`nif_cli` is imported inside functions: the jaxtyping hook must be installed before it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

# a training of a second: every test of the command line starts from these
TINY = [
    "trainer.max_time=null",
    "trainer.max_steps=12",
    "callbacks=quiet",
    "logger=csv",
    "device=cpu",
    "data.samples=1500",
    "data.surface_samples=400",
    "data.batch_points=128",
]
TINY_MLP = ["field=mlp", "field.width=24", "field.layers=2"]


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The message of a command that failed as the contract says: exit code 1, one or two lines, no
        traceback."""
        assert self.code == 1, (self.code, self.out, self.err)
        assert "Traceback" not in self.err
        assert "internal error" not in self.err
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert 1 <= len(lines) <= 2, self.err
        assert lines[0].startswith("nif: ")
        return self.err.removeprefix("nif: ").strip()


class Ball:
    """The signed distance of a ball, positive inside: an analytic Field."""

    level, truncation = 0.0, float("inf")

    def __init__(
        self, radius: float = 0.6, centre: tuple[float, float, float] = (0.0, 0.0, 0.0), half: float = 1.0
    ):
        self.radius, self.centre = radius, torch.tensor(centre)
        self.bounds = torch.tensor([[-half] * 3, [half] * 3])

    def value(self, points: torch.Tensor) -> torch.Tensor:
        return self.radius - (points - self.centre.to(points)).norm(dim=-1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _clean_place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, with its own cache of samples, one thread and no variables of
    nif."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NIF_CACHE", str(cache))
    monkeypatch.delenv("NIF_ALLOW", raising=False)
    monkeypatch.delenv("NIF_DEBUG", raising=False)
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def ball() -> type[Ball]:
    return Ball


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def nif(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`nif(*arguments)`: the command line in this process, as a Result."""

    def run(*args: object) -> Result:
        from nif_cli.cli import main

        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in args])
        out, err = capfd.readouterr()
        code = stopped.value.code
        return Result(code if isinstance(code, int) else int(code is not None), out, err)

    return run


@pytest.fixture
def tiny() -> list[str]:
    """Overrides of `train` for a training of a second."""
    return [*TINY, *TINY_MLP]


@pytest.fixture
def sphere_file(tmp_path: Path) -> Path:
    """A ball of radius 20 around (100, -50, 7), as a file."""
    mesh = trimesh.creation.icosphere(2, 20.0)
    mesh.apply_translation([100, -50, 7])
    path = tmp_path / "ball.ply"
    mesh.export(path)
    return path


@pytest.fixture
def paint() -> Callable[..., None]:
    """`paint(path, width, height, phase, mode="RGB")`: an image of smooth waves of colour."""

    def run(path: Path, width: int, height: int, phase: float, mode: str = "RGB") -> None:
        y, x = np.mgrid[:height, :width] / max(width, height)
        channels = [
            np.sin(4 * x + phase),
            np.cos(3 * y - phase),
            np.sin(3 * x + 2 * y + 2 * phase),
            np.ones_like(x),
        ]
        pixels = (127.5 * (1 + np.stack(channels[: {"L": 1, "RGB": 3, "RGBA": 4}[mode]], -1))).astype(
            np.uint8
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"quality": 95} if path.suffix == ".jpg" else {}
        Image.fromarray(pixels if mode != "L" else pixels[..., 0]).save(path, **options)

    return run


@pytest.fixture
def folder(paint: Callable[..., None], tmp_path: Path) -> Path:
    """Five images of different sizes and formats, two of them one level down."""
    for k, (name, width, height) in enumerate(
        [("a.png", 20, 14), ("b.jpg", 16, 16), ("c.png", 9, 21), ("sub/d.png", 12, 12), ("sub/e.png", 24, 10)]
    ):
        paint(tmp_path / "folder" / name, width, height, 0.3 * k)
    return tmp_path / "folder"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A DeepSDF run of six toy shapes after a few steps. Not to be written to: see `run`."""
    from nif_cli.cli import main

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NIF_CACHE", str(cache))
        torch.set_num_threads(1)
        with pytest.raises(SystemExit) as stopped:
            main(["train", *TINY, *TINY_MLP, "model.code_size=4", "data.count=6", "output_dir=run"])
    assert stopped.value.code == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "outputs" / "copy"))


@pytest.fixture(scope="session")
def meshes() -> Path:
    """The folder of real meshes."""
    root = os.environ.get("NIF_DATA")
    if not root:
        pytest.skip("NIF_DATA is unset: no real data")
    folder = Path(root).resolve() / "meshes"
    if not folder.is_dir():
        pytest.skip(f"NIF_DATA={root} has no meshes")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))
