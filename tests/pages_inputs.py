"""Small inputs under the names that the pages give them: `make(folder, names)` writes what the commands ask
for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import trimesh
from fuzz import seeds
from PIL import Image
from trimesh.visual import ColorVisuals


def make(folder: Path, text: str) -> None:
    """Every input whose name stands in the text of the commands."""
    for name, maker in INPUTS.items():
        if name in text:
            maker(folder / name)


def solid(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh = trimesh.creation.icosphere(1, 1.0)
    mesh.apply_scale([1.0, 0.8, 0.6 + 0.05 * (len(path.stem) % 4)])
    mesh.export(path)


def painted(path: Path) -> None:
    mesh = trimesh.creation.icosphere(2, 1.0)
    mesh.visual = ColorVisuals(mesh, vertex_colors=np.uint8(255 * (mesh.vertices / 2 + 0.5)))
    mesh.export(path)


def solids(path: Path) -> None:
    for k in range(1, 7):
        solid(path / f"chair-{k}{'x' * k}.ply")


def shapenet(path: Path) -> None:
    for k in range(2):
        solid(path / "03001627" / f"a{k}" / "models" / "model_normalized.obj")


def cloud(path: Path) -> None:
    points = trimesh.sample.sample_surface(trimesh.creation.icosphere(2, 1.0), 400, seed=0)[0]
    normals = points / np.linalg.norm(points, axis=1, keepdims=True)
    if path.suffix == ".xyz":
        np.savetxt(path, points)
        return
    names = "".join(f"property float {n}\n" for n in ("x", "y", "z", "nx", "ny", "nz"))
    rows = "\n".join(" ".join(map(str, row)) for row in np.column_stack((points, normals)).tolist())
    path.write_text(f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n{names}end_header\n{rows}\n")


def waves(width: int, height: int, phase: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / max(width, height)
    channels = np.stack([np.sin(4 * x + phase), np.cos(3 * y - phase), np.sin(3 * x + 2 * y)], -1)
    return (127.5 * (1 + channels)).astype(np.uint8)


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wide = path.stem == "photo"  # of which a part is drawn, by its own pixels
    Image.fromarray(waves(400, 320, 0.0) if wide else waves(24, 18, 0.4 * len(path.stem))).save(path)


def photos(path: Path) -> None:
    for k in range(7):
        photo(path / f"{'p' * (k + 1)}.png")


def cut_out(path: Path) -> None:
    pixels = np.dstack((waves(32, 32, 0.0), np.full((32, 32), 255, np.uint8)))
    pixels[:6, :, 3] = 0
    Image.fromarray(pixels).save(path)


def drawing(path: Path) -> None:
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">'
        '<path d="M3 3 L17 3 Q17 17 10 16 Z"/></svg>'
    )


def voxels(path: Path) -> None:
    x, y, z = (np.indices((16, 16, 16)) - 7.5) / 8
    grids = [(x**2 + y**2 * (1 + 0.1 * k) + z**2 < 0.5) for k in range(26)]
    np.savez(path, voxels=np.stack(grids))


def scene(kind: str) -> Callable[[Path], None]:
    """Nine views of a coloured ball before a transparent ground, as a format of scenes holds them."""

    def write(path: Path) -> None:
        whole = path.parent / f".{path.name}"
        seeds._scenes(whole)
        y, x = np.mgrid[:10, :20]
        ball = np.where((x - 9.5) ** 2 + (y - 4.5) ** 2 < 12, 255, 0).astype(np.uint8)
        pixels = np.dstack((waves(20, 10, 0.0), ball))
        for file in (whole / "scenes" / kind).rglob("*.png"):
            Image.fromarray(pixels).save(file)
        shutil.move(whole / "scenes" / kind, path)
        shutil.rmtree(whole)

    return write


def chair(path: Path, splits: tuple[str, ...] = ("train", "test")) -> None:
    """Views of a painted chair as Blender's scenes hold them, or one list of `images` as transforms.json: of
    what they show, a mesh can be made."""
    from nif_cli.data.scenes.toy import FOV, ToyViews

    (seen,) = ToyViews(views=8, test=2, size=24).read()
    for split in splits:
        suffix = ".png" if split == "images" else ""
        (path / split).mkdir(parents=True)
        frames = []
        for k, view in enumerate(seen.train if split != "test" else seen.test):
            Image.fromarray(view.pixels.numpy()).save(path / split / f"r_{k}.png")
            pose = np.vstack((view.pose.numpy(), [0, 0, 0, 1])).tolist()
            frames.append({"file_path": f"./{split}/r_{k}{suffix}", "transform_matrix": pose})
        about = {"camera_angle_x": float(np.radians(FOV)), "frames": frames}
        name = "transforms" if split == "images" else f"transforms_{split}"
        (path / f"{name}.json").write_text(json.dumps(about))


def camera_path(path: Path) -> None:
    poses = [np.vstack((p, [0, 0, 0, 1])).ravel().tolist() for p in seeds._poses(3)]
    frames = [{"camera_to_world": pose, "fov": 50, "aspect": 2} for pose in poses]
    path.write_text(
        json.dumps({"camera_path": frames, "render_height": 10, "render_width": 20, "seconds": 1})
    )


def experiment(path: Path) -> None:
    """The published layout, with a decoder that knows two balls."""
    seeds._experiment(path.parent)
    shutil.move(path.parent / "experiment", path)
    shutil.move(path / "data", path.parent.parent / "data")
    file = path / "ModelParameters" / "latest.pth"
    saved = torch.load(file, weights_only=True)
    last = max(k for k in saved["model_state_dict"] if k.endswith("bias"))
    saved["model_state_dict"][last] -= 0.05  # inside, somewhere
    torch.save(saved, file)


def own_groups(path: Path) -> None:
    (path / "experiment").mkdir(parents=True)
    (path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: image\n  - override /field: relu\n"
    )


MESHES = ("bunny.obj", "b.obj", "body.obj", "wing.obj", "mesh.ply", "chair.obj", "new_chair.obj")
INPUTS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys((*MESHES, "a.ply", "b.ply", "scan (1), v2=final.stl"), solid),
    **dict.fromkeys(("scan.ply", "scan.xyz"), cloud),
    **dict.fromkeys(("chairs", "shapes", "scans"), solids),
    "shapenet": shapenet,
    "bench.obj": painted,
    "photo.jpg": photo,
    "photos": photos,
    "chair.png": cut_out,
    "logo.svg": drawing,
    "chairs.npz": voxels,
    "fox": partial(chair, splits=("images",)),
    "scene/": partial(chair, splits=("images",)),
    "garden": scene("colmap"),
    "fern": scene("llff"),
    "lego": chair,
    "camera_path.json": camera_path,
    "my_conf": own_groups,
    "DeepSDF/examples/chairs": experiment,
}
