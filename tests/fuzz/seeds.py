"""Small valid files of every kind that nif reads: `make(folder)` writes them, each kind in a folder of its
own."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

TRAIN = ("trainer.max_time=null", "trainer.max_steps=4", "callbacks=quiet", "logger=csv", "device=cpu")
SMALL = ("field=mlp", "field.width=8", "field.layers=2")


@dataclass(frozen=True)
class Seed:
    kind: str  # of readers.READERS
    root: Path  # what is copied
    file: str  # what is spoilt, below the root


def make(folder: Path) -> list[Seed]:
    makers = (_runs, _experiment, _deepsdf, _onet, _voxels, _clouds, _meshes, _images, _curves, _scenes)
    return [seed for maker in makers for seed in maker(folder)]


def _runs(folder: Path) -> list[Seed]:
    """A run that was trained (it can be resumed), and runs with an observation, with scenes, with neither."""
    run = folder / "run"
    small = (
        *SMALL,
        "model.code_size=3",
        "data.count=3",
        "data.samples=300",
        "data.surface_samples=100",
        "data.batch_points=32",
    )
    command = [sys.executable, "-m", "nif_cli", "train", *TRAIN, *small, "output_dir=run"]
    environment = {**os.environ, "NIF_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    shapes = ("data.samples=300", "data.surface_samples=100", "data.count=2", "data.test=1")
    made = {
        "sdf": ("model=sdf", *SMALL, "data=toy_shapes", *shapes, "data.count=1", "data.test=0"),
        "occupancy": (
            "model=occupancy",
            "encoder=pointcloud",
            "encoder.width=8",
            "encoder.blocks=2",
            "encoder.code_size=4",
            "field.width=8",
            "data=toy_shapes",
            *shapes,
        ),
        "nerf": ("model=nerf", "data.size=8", "data.views=4", "data.test=1", "model.resolution=16"),
    }
    seeds = [
        Seed("checkpoint", run, "checkpoints/last.ckpt"),
        Seed("resume", run, "config.yaml"),
        Seed("metrics", run, "metrics.csv"),
        Seed("resume", run, "checkpoints/last.ckpt"),
        Seed("resume", run, "metrics.csv"),
        *(Seed("runs", run, f) for f in ("run.json", "summary.json", "metrics.csv", "config.yaml")),
    ]
    for name, overrides in made.items():
        _checkpoint(folder / name, overrides)
        seeds.append(Seed("checkpoint", folder / name, "checkpoints/last.ckpt"))
    paths = folder / "path"
    poses = [{"camera_to_world": np.vstack((p, [0, 0, 0, 1])).tolist(), "fov": 50} for p in _poses(4)]
    _put(
        paths / "camera_path.json",
        json.dumps({"camera_path": poses, "render_height": 10, "render_width": 20}),
    )
    return [*seeds, Seed("camera_path", paths, "camera_path.json")]


def _checkpoint(run: Path, overrides: tuple[str, ...]) -> None:
    """A run as it would be before its first step."""
    from hydra import compose, initialize_config_dir

    from nif_cli import conf_folder, runs
    from nif_cli.config import build, check, register

    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = vars(check(compose("train", list(overrides)), "train"))
    data = build(config["data"], "data")
    model = runs.make_model(config)
    model.space = data.space
    model.attach_data(data)
    checkpoint: dict = {"state_dict": model.state_dict(), "global_step": 0}
    checkpoint["nif"] = model.state()
    runs.write_config(run, config)
    runs.write(run / "checkpoints" / "last.ckpt", lambda path: torch.save(checkpoint, path))


def _experiment(folder: Path) -> list[Seed]:
    root, size, width, layers, skip = folder / "experiment", 3, 8, 4, 2
    rng = torch.Generator().manual_seed(0)
    state, into = {}, size + 3
    for i in range(layers + 1):
        out = 1 if i == layers else width - (size + 3 if i + 1 == skip else 0)
        into = size + 3 if i == 0 else width
        weight = torch.randn(out, into, generator=rng)
        named = (
            {"weight_g": weight.norm(dim=1, keepdim=True), "weight_v": weight}
            if i < layers
            else {"weight": weight}
        )
        state |= {f"module.lin{i}.{k}": v for k, v in named.items()} | {
            f"module.lin{i}.bias": torch.zeros(out)
        }
    network = {
        "dims": [width] * layers,
        "dropout": [0, 1],
        "dropout_prob": 0.2,
        "norm_layers": list(range(layers)),
        "latent_in": [skip],
        "weight_norm": True,
    }
    specs = {
        "NetworkArch": "deep_sdf_decoder",
        "DataSource": "data",
        "TrainSplit": "split.json",
        "NetworkSpecs": network,
        "CodeLength": size,
        "ClampingDistance": 0.1,
        "CodeBound": 1.0,
    }
    _put(root / "specs.json", json.dumps(specs))
    _put(root / "split.json", json.dumps({"d": {"c": ["a", "b"]}}))
    for kind in ("ModelParameters", "LatentCodes"):
        (root / kind).mkdir(parents=True)
    torch.save({"epoch": 9, "model_state_dict": state}, root / "ModelParameters" / "latest.pth")
    torch.save(
        {"epoch": 9, "latent_codes": {"weight": torch.randn(2, size, generator=rng)}},
        root / "LatentCodes" / "latest.pth",
    )
    _normalisation(root / "data", "a", "b")
    files = (
        "specs.json",
        "split.json",
        "ModelParameters/latest.pth",
        "LatentCodes/latest.pth",
        "data/NormalizationParameters/d/c/a.npz",
    )
    return [Seed("experiment", root, file) for file in files]


def _normalisation(root: Path, *names: str) -> None:
    for name in names:
        path = root / "NormalizationParameters" / "d" / "c" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, offset=np.array([1.0, 2.0, 3.0]), scale=np.array([2.0]))


def _deepsdf(folder: Path) -> list[Seed]:
    from nif_cli.data.shapes.formats import deepsdf
    from nif_cli.geometry.transform import Transform

    root, entry, rng = folder / "deepsdf", deepsdf.DeepSdfEntry("d", "c", "a"), np.random.default_rng(0)
    points = rng.uniform(-1, 1, (60, 3))
    normals = points / np.linalg.norm(points, axis=1, keepdims=True)
    deepsdf.write_sdf_samples(
        root,
        entry,
        Transform((1.0, 2.0, 3.0), 2.0),
        points,
        0.5 - np.linalg.norm(points, axis=1),
        normals,
        normals,
    )
    deepsdf.write_split_json(root, "x", {"split": [entry]})
    files = (
        "split.json",
        "SdfSamples/d/c/a.npz",
        "SurfaceSamples/d/c/a.ply",
        "NormalizationParameters/d/c/a.npz",
    )
    return [Seed("deepsdf", root, file) for file in files]


def _onet(folder: Path) -> list[Seed]:
    from nif_cli.data.shapes.formats import onet
    from nif_cli.data.shapes.formats.voxels import write_binvox
    from nif_cli.geometry.transform import Transform

    root, entry, rng = folder / "onet", onet.OnetEntry("chair", "a"), np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (60, 3))
    onet.write_occupancy_samples(
        root, entry, Transform(), points, np.linalg.norm(points, axis=1) < 0.4, points, points
    )
    onet.write_split_lists(root, {"train": [entry]})
    inner = root / "chair" / "a"
    write_binvox(inner / "model.binvox", _ball(6))
    (inner / "img_choy2016").mkdir()
    Image.fromarray(_waves(16, 16)).save(inner / "img_choy2016" / "000.jpg")
    np.savez(inner / "img_choy2016" / "cameras.npz", world_mat_0=np.eye(4)[:3], camera_mat_0=np.eye(3))
    files = (
        "chair/train.lst",
        "metadata.yaml",
        "chair/a/points.npz",
        "chair/a/pointcloud.npz",
        "chair/a/img_choy2016/cameras.npz",
        "chair/a/img_choy2016/000.jpg",
        "chair/a/model.binvox",
    )
    return [Seed("onet", root, file) for file in files]


def _ball(n: int) -> np.ndarray:
    return (np.indices((n, n, n)) - (n - 1) / 2).__pow__(2).sum(0) < (n / 2) ** 2


def _voxels(folder: Path) -> list[Seed]:
    from nif_cli.data.shapes.formats.voxels import write_binvox

    root, grid = folder / "voxels", _ball(6)
    for name in ("a", "b", "c", "d"):
        (root / name).mkdir(parents=True)
    np.save(root / "a" / "v.npy", np.stack([grid, grid]))
    np.savez(root / "b" / "v.npz", voxels=grid, other=np.zeros(9))
    np.savez_compressed(root / "c" / "v.npz", occupancy=np.packbits(grid), shape=np.array(grid.shape))
    write_binvox(root / "d" / "v.binvox", grid)
    return [
        Seed("voxels", root / n, f"v.{s}")
        for n, s in (("a", "npy"), ("b", "npz"), ("c", "npz"), ("d", "binvox"))
    ]


def _clouds(folder: Path) -> list[Seed]:
    root, rng = folder / "clouds", np.random.default_rng(0)
    points = rng.normal(size=(40, 3)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    both = np.column_stack((points, points))
    for name in "abcdefgh":
        (root / name).mkdir(parents=True)
    np.save(root / "a" / "c.npy", both)
    np.savez(root / "b" / "c.npz", points=points, normals=points, other=points)
    np.savez(root / "c" / "c.npz", points=points.astype(np.float16), loc=np.zeros(3), scale=np.array(1.0))
    np.savetxt(root / "d" / "c.xyz", both)
    trimesh.PointCloud(points).export(root / "e" / "c.ply")
    names = "".join(f"property float {n}\n" for n in ("x", "y", "z", "nx", "ny", "nz"))
    rows = "\n".join(" ".join(map(str, row)) for row in both.tolist())
    _put(root / "f" / "c.ply", f"ply\nformat ascii 1.0\nelement vertex 40\n{names}end_header\n{rows}\n")
    signed = np.column_stack(
        (points * np.linspace(0.5, 1.5, 40)[:, None], np.linspace(-0.5, 0.5, 40))
    ).astype(np.float32)
    np.savez(root / "g" / "c.npz", pos=signed[20:], neg=signed[:20])
    depth = np.full((8, 8), 2.0)
    np.savez(root / "h" / "c.npz", depth=depth, pose=np.eye(4)[:3], fov=np.array(40.0), other=depth)
    named = dict(zip("abcdefgh", ("npy", "npz", "npz", "xyz", "ply", "ply", "npz", "npz"), strict=True))
    return [
        Seed("depth" if n == "h" else "samples" if n == "g" else "cloud", root / n, f"c.{s}")
        for n, s in named.items()
    ]


def _meshes(folder: Path) -> list[Seed]:
    root, seeds = folder / "meshes", []
    box = trimesh.creation.box()
    for kind in ("obj", "ply", "off", "stl", "glb"):
        (root / kind).mkdir(parents=True)
        box.export(root / kind / f"m.{kind}")
        seeds.append(Seed("mesh", root / kind, f"m.{kind}"))
    (root / "gltf").mkdir()
    for name, content in trimesh.Scene(box).export(file_type="gltf").items():  # type: ignore[union-attr]
        (root / "gltf" / ("m.gltf" if name.endswith(".gltf") else name)).write_bytes(content)
    seeds += [Seed("mesh", root / "gltf", p.name) for p in sorted((root / "gltf").iterdir())]
    painted = root / "painted"
    vertices = "".join("v {} {} {}\n".format(*v) for v in box.vertices.tolist())
    faces = "".join("f {}/1 {}/2 {}/3\n".format(*(f + 1)) for f in box.faces)
    _put(painted / "m.obj", f"mtllib m.mtl\n{vertices}vt 0 0\nvt 1 0\nvt 0 1\nusemtl a\n{faces}")
    _put(painted / "m.mtl", "newmtl a\nKd 1 0.5 0.2\nmap_Kd m.png\n")
    Image.fromarray(_waves(8, 8)).save(painted / "m.png")
    return [*seeds, *(Seed("painted", painted, f"m.{s}") for s in ("obj", "mtl", "png"))]


def _waves(width: int, height: int, channels: int = 3) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / max(width, height)
    return (
        127.5 * (1 + np.stack([np.sin(4 * x), np.cos(3 * y), np.sin(3 * x + 2 * y), x], -1)[..., :channels])
    ).astype(np.uint8)


def _images(folder: Path) -> list[Seed]:
    root, seeds = folder / "images", []
    for kind in ("png", "jpg", "tif", "bmp", "webp", "npy"):
        (root / kind).mkdir(parents=True)
        path = root / kind / f"p.{kind}"
        if kind == "npy":
            np.save(path, _waves(20, 17))
        else:
            Image.fromarray(_waves(20, 17)).save(path)
        seeds.append(Seed("image", root / kind, path.name))
    return seeds


def _curves(folder: Path) -> list[Seed]:
    root = folder / "curves"
    shapes = (
        '<path transform="translate(1 2) rotate(9)" d="M0 0 L9 0 Q9 9 4 8 C3 7 2 6 0 9 Z"/><circle '
        'cx="4" cy="5" r="2"/>'
    )
    group = '<g id="a"><rect x="1" y="1" width="3" height="2" rx="1"/></g><use href="#a" x="5"/>'
    _put(
        root / "svg" / "c.svg",
        f'<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{shapes}{group}</svg>',
    )
    (root / "image").mkdir()
    Image.fromarray(np.where(_ball(20)[10], 0, 255).astype(np.uint8)).save(root / "image" / "c.png")
    return [Seed("curve", root / "svg", "c.svg"), Seed("curve", root / "image", "c.png")]


def _poses(count: int) -> np.ndarray:
    """Cameras around the origin, camera to world in OpenGL axes [V, 3, 4]."""
    from nif_cli.rendering.camera_paths import turntable

    return np.stack([p.double().numpy() for p in turntable(count, 20, "z", 4.0)])


def _scenes(folder: Path) -> list[Seed]:
    root, poses = folder / "scenes", _poses(9)
    names = [f"{k:02d}.png" for k in range(9)]
    for kind, inner in (
        ("transforms", "images"),
        ("blender", "train"),
        ("colmap", "images"),
        ("text", "images"),
        ("llff", "images"),
    ):
        (root / kind / inner).mkdir(parents=True)
        for name in names:
            Image.fromarray(_waves(20, 10, 4)).save(root / kind / inner / name)
    whole = [np.vstack((p, [0, 0, 0, 1])).tolist() for p in poses]
    frames = [{"file_path": f"images/{n}", "transform_matrix": m} for n, m in zip(names, whole, strict=True)]
    lens = {"fl_x": 25.0, "fl_y": 25.0, "cx": 10.0, "cy": 5.0, "w": 20, "h": 10, "k1": 0.01}
    _put(
        root / "transforms" / "transforms.json",
        json.dumps({**lens, "aabb_scale": 2, "scale": 0.5, "frames": frames}),
    )
    for split, some in (("train", range(6)), ("test", range(6, 9))):
        of_split = [
            {"file_path": f"./train/{k:02d}", "transform_matrix": whole[k], "rotation": 0.1} for k in some
        ]
        _put(
            root / "blender" / f"transforms_{split}.json",
            json.dumps({"camera_angle_x": 0.7, "frames": of_split}),
        )
    _colmap(root / "colmap" / "sparse" / "0", poses, names, binary=True)
    _colmap(root / "text" / "sparse" / "0", poses, names, binary=False)
    forward = np.concatenate(
        [np.broadcast_to(np.eye(3), (9, 3, 3)), np.random.default_rng(0).normal(size=(9, 3, 1))], 2
    )
    turned = np.stack(
        (
            -forward[:, :, 1],
            forward[:, :, 0],
            forward[:, :, 2],
            forward[:, :, 3],
            np.broadcast_to([10.0, 20, 25], (9, 3)),
        ),
        2,
    )
    np.save(
        root / "llff" / "poses_bounds.npy",
        np.concatenate([turned.reshape(9, 15), np.broadcast_to([4.0, 20], (9, 2))], 1),
    )
    sparse = [("colmap", "bin"), ("text", "txt")]
    return [
        Seed("transforms", root / "transforms", "transforms.json"),
        Seed("transforms", root / "transforms", "images/03.png"),
        Seed("blender", root / "blender", "transforms_train.json"),
        Seed("blender", root / "blender", "train/03.png"),
        *(
            Seed("colmap", root / k, f"sparse/0/{n}.{s}")
            for k, s in sparse
            for n in ("cameras", "images", "points3D")
        ),
        Seed("llff", root / "llff", "poses_bounds.npy"),
    ]


def _colmap(folder: Path, poses: np.ndarray, names: list[str], binary: bool) -> None:
    folder.mkdir(parents=True)
    lens, points = (
        [25.0, 26.0, 10.0, 5.0, 0.1, 0.02, 0.001, 0.002],
        np.random.default_rng(0).uniform(-1, 1, (20, 3)),
    )
    turned = []
    for p in poses:
        rotation = (p[:, :3] * [1, -1, -1]).T
        x, y, z, w = Rotation.from_matrix(rotation).as_quat()
        turned.append([w, x, y, z, *(-rotation @ p[:, 3])])
    if binary:
        (folder / "cameras.bin").write_bytes(
            struct.pack("<Q", 1) + struct.pack("<iiQQ8d", 1, 4, 20, 10, *lens)
        )
        images = struct.pack("<Q", len(names))
        for k, (values, name) in enumerate(zip(turned, names, strict=True)):
            images += (
                struct.pack("<i7di", k + 1, *values, 1)
                + name.encode()
                + b"\0"
                + struct.pack("<Qddq", 1, 1, 2, -1)
            )
        (folder / "images.bin").write_bytes(images)
        rows = b"".join(struct.pack("<Q3d3BdQ2i", k, *p, 1, 2, 3, 0.5, 1, 1, 0) for k, p in enumerate(points))
        (folder / "points3D.bin").write_bytes(struct.pack("<Q", len(points)) + rows)
        return
    _put(folder / "cameras.txt", f"# cameras\n1 OPENCV 20 10 {' '.join(map(str, lens))}\n")
    lines = [
        f"{k + 1} {' '.join(map(str, v))} 1 {n}\n1.0 2.0 -1"
        for k, (v, n) in enumerate(zip(turned, names, strict=True))
    ]
    _put(folder / "images.txt", "# images\n" + "\n".join(lines) + "\n")
    _put(
        folder / "points3D.txt",
        "\n".join(f"{k} {p[0]} {p[1]} {p[2]} 1 2 3 0.5 1 0" for k, p in enumerate(points)),
    )


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
