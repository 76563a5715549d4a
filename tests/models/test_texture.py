"""Coloured surfaces from the command line: colours arrive in ply, in glb (linear) and in images."""

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual import ColorVisuals

from nif_cli.data.shapes.textured import painted_ball

QUICK = [
    "trainer.max_time=null",
    "callbacks=quiet",
    "logger=csv",
    "device=cpu",
    "data.batch_points=2000",
    "output_dir=run",
]
FEW = ["data.samples=20000", "data.surface_samples=20000"]


def test_colours_come_back(nif, tmp_path):
    """A half red, half blue ball in the user's own units."""
    ball = trimesh.creation.icosphere(4, 2.0)
    red = np.asarray(ball.vertices)[:, 0] > 0
    colors = np.where(red[:, None], [255, 0, 0], [0, 0, 255]).astype(np.uint8)
    ball.visual = ColorVisuals(ball, vertex_colors=colors)
    ball.apply_translation([10, 0, 0])
    ball.export(tmp_path / "ball.ply")
    train = [
        "train",
        "model=texture",
        "data.path=ball.ply",
        "trainer.max_steps=60",
        "field=voxel",
        "field.resolution=32",
    ]
    result = nif(*train, *QUICK, *FEW)
    assert result.code == 0, result.err
    assert "coloured by vertices" in result.out
    for format in ("ply", "glb"):
        assert nif("extract", "run=run", "resolution=40", f"format={format}").code == 0
        mesh = trimesh.load_scene(tmp_path / f"run/meshes/ball.{format}", process=False).to_mesh()
        colors = np.asarray(mesh.visual.vertex_colors)[:, :3]
        right = mesh.vertices[:, 0] > 10.4
        assert np.abs(colors[right] - [255, 0, 0]).mean() < 12
        assert np.abs(colors[mesh.vertices[:, 0] < 9.6] - [0, 0, 255]).mean() < 12
    assert nif("render", "run=run", "frames=1", "size=64").code == 0
    image = np.asarray(Image.open(tmp_path / "run/renders/ball.png")).astype(int)
    shown = image[(image < 250).any(-1)]
    assert shown[:, 1].mean() < 0.3 * max(shown[:, 0].mean(), shown[:, 2].mean())


def test_glb_is_linear_and_ply_is_srgb():
    from nif_cli.geometry.mesh import mesh_bytes

    mesh = trimesh.creation.box()
    mesh.visual = ColorVisuals(mesh, vertex_colors=np.full((len(mesh.vertices), 3), 188, np.uint8))
    import io

    for format, expected in (("ply", 188), ("glb", 128)):
        again = trimesh.load_scene(
            io.BytesIO(mesh_bytes(mesh, format)), file_type=format, process=False
        ).to_mesh()
        assert np.abs(np.asarray(again.visual.vertex_colors)[:, :3].astype(int) - expected).max() <= 1


def test_it_works_with_nothing_given(nif):
    result = nif("train", "model=texture", "trainer.max_steps=2", *QUICK, *FEW)
    assert result.code == 0, result.err
    assert "painted_ball" in result.out
    assert painted_ball().is_watertight


def test_a_mesh_without_colours_is_told(nif, sphere_file):
    assert (
        "it has no colours" in nif("train", "model=texture", f"data.path={sphere_file}", *QUICK, *FEW).error
    )
    assert (
        "coloured shapes"
        in nif("train", "model=texture", "data=meshes", f"data.path={sphere_file}", *QUICK).error
    )
