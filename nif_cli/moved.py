"""Names that have moved. Class paths and keys are a file format: they stand in the configurations and the
checkpoints of runs, and in users' own YAML files. What moves, or changes its name, leaves a line here, and
old files stay readable."""

from __future__ import annotations

from typing import Any

# old dotted path of a class: its path today
MOVED: dict[str, str] = {
    "nif_cli.callbacks.Checkpoints": "nif_cli.training.callbacks.Checkpoints",
    "nif_cli.callbacks.CsvLogger": "nif_cli.training.csv_logger.CsvLogger",
    "nif_cli.callbacks.Preview": "nif_cli.training.preview.Preview",
    "nif_cli.callbacks.Progress": "nif_cli.training.callbacks.Progress",
    "nif_cli.data.clouds.PointClouds": "nif_cli.data.shapes.point_clouds.PointClouds",
    "nif_cli.data.curve.CurveBatches": "nif_cli.data.images.curves.CurveBatches",
    "nif_cli.data.curve.CurveData": "nif_cli.data.images.curves.CurveData",
    "nif_cli.data.formats.blender.BlenderViews": "nif_cli.data.scenes.blender.BlenderViews",
    "nif_cli.data.formats.colmap.ColmapViews": "nif_cli.data.scenes.colmap.ColmapViews",
    "nif_cli.data.formats.llff.LlffViews": "nif_cli.data.scenes.llff.LlffViews",
    "nif_cli.data.formats.transforms.TransformsViews": "nif_cli.data.scenes.transforms.TransformsViews",
    "nif_cli.data.image.ImageData": "nif_cli.data.images.datamodule.ImageData",
    "nif_cli.data.image.PictureBatches": "nif_cli.data.images.datamodule.ImageBatches",
    "nif_cli.data.image.PixelBatches": "nif_cli.data.images.datamodule.PixelBatches",
    "nif_cli.data.inputs.DepthInput": "nif_cli.data.shapes.user_files.DepthInput",
    "nif_cli.data.meshes.Folder": "nif_cli.data.shapes.meshes.Folder",
    "nif_cli.data.meshes.MeshData": "nif_cli.data.shapes.meshes.MeshData",
    "nif_cli.data.meshes.Meshes": "nif_cli.data.shapes.meshes.Meshes",
    "nif_cli.data.meshes.ToyShapes": "nif_cli.data.shapes.toy.ToyShapes",
    "nif_cli.data.meshes.Voxels": "nif_cli.data.shapes.voxel_grids.VoxelGrids",
    "nif_cli.data.pictures.KeptPicture": "nif_cli.data.images.folder.KeptImage",
    "nif_cli.data.prepared.DeepSdfTree": "nif_cli.data.shapes.presampled.DeepSdfTree",
    "nif_cli.data.prepared.OnetData": "nif_cli.data.shapes.presampled.OnetData",
    "nif_cli.data.shapes.Meshes": "nif_cli.data.shapes.meshes.Meshes",
    "nif_cli.data.shapes.ShapeBatches": "nif_cli.data.shapes.datamodule.ShapeBatches",
    "nif_cli.data.shapes.ShapeData": "nif_cli.data.shapes.datamodule.ShapeData",
    "nif_cli.data.shapes.ToyShapes": "nif_cli.data.shapes.toy.ToyShapes",
    "nif_cli.data.textured.TexturedMeshes": "nif_cli.data.shapes.textured.TexturedMeshes",
    "nif_cli.data.toy_views.ToyViews": "nif_cli.data.scenes.toy.ToyViews",
    "nif_cli.data.views.RayBatches": "nif_cli.data.scenes.datamodule.RayBatches",
    "nif_cli.data.views.Views": "nif_cli.data.scenes.datamodule.Views",
    "nif_cli.fields.grids.Voxels": "nif_cli.fields.grids.VoxelArray",
    "nif_cli.fields.radiance.Nerf": "nif_cli.fields.nerf.NerfNetwork",
    "nif_cli.fields.radiance.Ngp": "nif_cli.fields.ngp.NgpNetwork",
    "nif_cli.geometry.compose.ComposedSignal": "nif_cli.geometry.csg.ComposedSignal",
    "nif_cli.models.adaptation.StepSizes": "nif_cli.models.inner_loop.StepSizes",
    "nif_cli.models.optimizers.Adam": "nif_cli.optim.adam.Adam",
    "nif_cli.models.optimizers.Cosine": "nif_cli.optim.schedules.Cosine",
    "nif_cli.models.optimizers.Halving": "nif_cli.optim.schedules.StepDecay",
    "nif_cli.models.radiance.Codes": "nif_cli.models.scene_field.Codes",
    "nif_cli.models.subjects.Signed": "nif_cli.models.meta_tasks.Signed",
    "nif_cli.rendering.occupancy.OccupancyGrid": "nif_cli.rendering.occupancy_grid.OccupancyGrid",
    "nif_cli.sweep.Comparison": "nif_cli.training.sweep.Comparison",
    "nif_cli.sweep.SweepTable": "nif_cli.training.sweep.SweepTable",
    "nif_cli.training.callbacks.Preview": "nif_cli.training.preview.Preview",
}

# (path of a class today, old key of its configuration): the key today
KEYS: dict[tuple[str, str], str] = {}


def today(target: str) -> str:
    """The path of a class today, by any that it ever had."""
    return MOVED.get(target, target)


def with_todays_keys(target: str, node: dict[str, Any]) -> dict[str, Any]:
    """A configuration node of the class `target` (its path today), old keys renamed; a key that is there
    stays."""
    old = {key: KEYS[target, key] for key in node if (target, key) in KEYS}
    if not old:
        return node
    return {old.get(key, key): value for key, value in node.items() if old.get(key) not in node}
