"""What nif extract writes besides meshes: pages, textures, clouds, grids, graphs."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from conftest import Ball, Result
from PIL import Image

import nif_cli
from nif_cli import NifError
from nif_cli.export.clouds import on_surface
from nif_cli.export.graphs import exported
from nif_cli.export.grids import grid_npz
from nif_cli.export.page import page, part
from nif_cli.export.textures import dilated, painted_texture, texels, textured_files, unwrapped
from nif_cli.field import BoundColoredField, bind
from nif_cli.fields.grids import HashGrid, Triplane
from nif_cli.fields.mlp import MLP
from nif_cli.fields.siren import Siren
from nif_cli.fields.wire import Wire
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.transform import Transform


def unpacked(text: str, rows: int, columns: int, width: int) -> np.ndarray:
    """As the page's script does it."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(width, rows * columns)
    zigzag = sum(planes[b].astype(np.int64) << (8 * b) for b in range(width))
    delta = np.where(zigzag & 1, -(zigzag + 1) // 2, zigzag // 2)
    return delta.reshape(rows, columns).cumsum(0)


def test_a_page_holds_the_meshes(ball: type[Ball]):
    mesh = extract_mesh(ball(0.5, (0.2, 0.0, 0.0)), 24)
    mesh.vertices = mesh.vertices * 7 + [1e6, 0, 0]
    mesh.visual.vertex_colors = np.uint8(255 * (mesh.vertices[:, 1:2] > 0)) * [1, 1, 1]  # type: ignore[union-attr]
    text = page("</script><b>", [part("a<b", mesh, np.zeros((1, 2, 3)))], way=True)
    assert text.count("</script>") == 2  # nobody's name ends a script
    assert "http" not in text.replace("http-equiv", "")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    read = json.loads(found)
    assert (read["title"], read["way"]) == ("</script><b>", True)
    (one,) = read["meshes"]
    grid = unpacked(one["vertices"], one["n"], 3, 3)
    faces = unpacked(one["faces"], one["f"], 3, 4)
    middle = np.asarray(mesh.bounds).mean(0)
    placed = np.asarray(one["low"]) + one["step"] * grid + middle
    truth = mesh.triangles
    assert np.abs(placed[faces] - truth).max() < 1e-4 * 7
    colours = unpacked(one["colours"], one["n"], 3, 2)
    assert (colours[faces] == np.asarray(mesh.visual.vertex_colors)[mesh.faces][..., :3]).all()  # type: ignore[union-attr]


def test_texels_cover_each_face_once():
    places = np.array([[0.1, 0.1], [0.9, 0.15], [0.85, 0.9], [0.15, 0.8]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    texel, face, weights = texels(faces, places, 64)
    assert len(np.unique(texel)) == len(texel)
    at = np.stack((texel % 64 + 0.5, 64 - (texel // 64) - 0.5), 1) / 64
    assert np.allclose((places[faces[face]] * weights[..., None]).sum(1), at)
    area = 0.5 * abs(np.linalg.det([places[2] - places[0], places[3] - places[1]]))
    assert len(texel) == pytest.approx(area * 64**2, rel=0.02)
    known = np.zeros((64, 64), bool)
    known.ravel()[texel] = True
    image = np.zeros((64, 64, 3), np.uint8)
    image[known] = 9
    assert (dilated(image, known) == 9).all()


@pytest.mark.parametrize("format", ["glb", "obj"])
def test_a_texture_lies_where_its_colours_are(ball: type[Ball], tmp_path: Path, format: str):
    pytest.importorskip("xatlas")
    mesh = extract_mesh(ball(0.6), 20)
    mesh.vertices = mesh.vertices * 3 + [1e5, 2, 3]

    def colours(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        return (127.5 + 127.5 * normals).clip(0, 255).astype(np.uint8)

    flat, places = unwrapped(mesh, 256)
    assert places.min() >= 0
    assert places.max() <= 1
    image = painted_texture(flat, places, 256, colours)
    for suffix, content in textured_files(flat, places, image, format, "shape").items():
        (tmp_path / f"shape.{suffix}").write_bytes(content)
    read: Any = trimesh.load_mesh(tmp_path / f"shape.{format}", process=False)
    read = read.to_geometry() if isinstance(read, trimesh.Scene) else read
    visual: Any = read.visual
    material = visual.material
    seen = np.asarray((material.baseColorTexture if format == "glb" else material.image).convert("RGB"))
    assert np.allclose(read.bounds, mesh.bounds, atol=1e-2)
    assert len(read.faces) == len(mesh.faces)
    centres = read.triangles.mean(1)
    uv = visual.uv[read.faces].mean(1)
    at = seen[((1 - uv[:, 1]) * 256).astype(int), (uv[:, 0] * 256).astype(int)].astype(float)
    normal = (centres - [1e5, 2, 3]) / np.linalg.norm(centres - [1e5, 2, 3], axis=1, keepdims=True)
    assert np.abs(at - (127.5 + 127.5 * normal)).max() < 25


NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "siren": lambda: Siren(3, 1, width=16, layers=2),
    "mlp": lambda: MLP(3, 1, width=16, layers=2),
    "hash": lambda: MLP(
        3, 1, width=16, layers=2, encoding=partial(HashGrid, levels=3, log2_table=6, base=4, finest=32)
    ),
    "triplane": lambda: MLP(3, 1, width=16, layers=2, encoding=partial(Triplane, resolution=8, features=2)),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_graph_gives_what_the_field_gives(kind: str):
    pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    network, colors, transform = (
        NETWORKS[kind](),
        MLP(3, 3, width=8, layers=1),
        Transform((5.0, 0.0, -2.0), 0.25),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    made = exported(BoundColoredField(network, None, None, 0.2, bounds, 0.1, colors), transform, 4.0)
    assert made.difference < 1e-5
    assert made.outputs == ["value", "color"]
    session = ort.InferenceSession(made.content, providers=["CPUExecutionProvider"])
    for count in (1, 3, 300):  # any number of points
        points = torch.rand(count, 3) * 8 - torch.tensor([9.0, 4.0, 2.0])
        value, color = session.run(None, {"points": points.numpy()})
        x = ((points.double() + torch.tensor(transform.offset)) * transform.scale).float()
        with torch.no_grad():
            truth = 4 * (network(x[None], None)[0, :, 0] - 0.2)
            painted = 0.5 + 0.5 * colors(x[None], None)[0]
        assert np.allclose(value, truth, atol=1e-5 * max(1, float(truth.abs().max())))
        assert np.allclose(color, painted, atol=1e-5)


def test_what_no_graph_can_hold_is_said(capfd: pytest.CaptureFixture[str]):
    pytest.importorskip("onnxruntime")
    with pytest.raises(NifError, match="cannot be written as a graph"):
        exported(bind(Wire(3, 1, width=8, layers=2)), Transform(), 1.0)
    assert capfd.readouterr().out == ""


def test_a_grid_of_values(ball: type[Ball]):
    transform = Transform((1.0, 2.0, 3.0), 0.5)
    found = np.load(io.BytesIO(grid_npz(ball(0.5), transform, 9, 2.0, 0.1)))
    where = found["origin"] + found["spacing"] * np.array([3, 4, 7])
    normalised = (where + found["offset"]) * found["scale"]
    assert found["values"][3, 4, 7] == pytest.approx(2 * (0.5 - np.linalg.norm(normalised) - 0.1), abs=1e-5)


def test_points_lie_on_the_mesh(ball: type[Ball]):
    points, normals = on_surface(extract_mesh(ball(0.5), 40), 500)
    assert np.abs(np.linalg.norm(points, axis=1) - 0.5).max() < 0.01
    assert (points * normals).sum(1).min() > 0.4


def test_the_command_writes_them(nif: Callable[..., Result], trained: Path, tmp_path: Path):
    known = nif_cli.load(trained)
    few = [f"run={trained}", "resolution=16", "level=0.02", "output=made"]
    told = nif("extract", *few, "instances=2", "format=html")
    assert told.code == 0, told.err
    assert "2 meshes" in told.out
    assert (tmp_path / "made" / "run.html").stat().st_size < 100_000
    id = known.ids[0]
    assert nif("extract", *few, "instances=1", "format=npz").code == 0
    found = np.load(tmp_path / "made" / f"{id}.npz")
    at = found["origin"] + found["spacing"] * np.array([4, 5, 6])
    scale = float(found["scale"])
    assert found["values"][4, 5, 6] == pytest.approx(float(known.value(id, at)) - 0.02 / scale, abs=1e-4)
    assert nif("extract", *few, "instances=1", "format=points", "points=300").code == 0
    cloud: Any = trimesh.load(tmp_path / "made" / f"{id}_points.ply")
    assert len(cloud.vertices) == 300
    assert np.abs(known.value(id, cloud.vertices) * scale - 0.02).max() < 0.05
    pytest.importorskip("onnxruntime")
    told = nif("extract", *few, "instances=1", "format=onnx")
    assert told.code == 0, told.err
    assert "points -> value" in told.out


def test_what_does_not_go_is_said(nif: Callable[..., Result], trained: Path, monkeypatch: pytest.MonkeyPatch):
    few = [f"run={trained}", "resolution=12", "level=0.02", "instances=1"]
    assert "texture: goes with format=glb or obj" in nif("extract", *few, "texture=64").error
    assert "has no colours" in nif("extract", *few, "texture=64", "format=glb").error
    assert "texture=3: must be between" in nif("extract", *few, "texture=3", "format=glb").error
    for name in ("onnxruntime", "xatlas"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'nif-cli[onnx]'" in nif("extract", *few, "format=onnx").error
    with pytest.raises(NifError, match="pip install 'nif-cli"):
        unwrapped(trimesh.creation.box(), 64)


def test_a_textured_mesh_of_a_run(nif: Callable[..., Result], tmp_path: Path, tiny: list[str]):
    pytest.importorskip("xatlas")
    mesh = trimesh.creation.icosphere(2, 1.0)
    mesh.visual.vertex_colors = np.uint8(255 * (mesh.vertices / 2 + 0.5))  # type: ignore[union-attr]
    mesh.export("painted.ply")
    words = ["model=texture", "data.path=painted.ply", "output_dir=run", "trainer.max_steps=150"]
    assert nif("train", *tiny, *words).code == 0
    told = nif("extract", "run=run", "format=obj", "texture=64", "resolution=24", "faces=300")
    assert told.code == 0, told.err
    assert "texture of 64 x 64" in told.out
    files = sorted(p.name for p in (tmp_path / "run" / "meshes").iterdir())
    assert files == ["painted.mtl", "painted.obj", "painted.png"]
    assert Image.open(tmp_path / "run" / "meshes" / "painted.png").size == (64, 64)
