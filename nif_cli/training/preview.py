"""Images and meshes of what is being learned, while it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl

from nif_cli import NifError, runs
from nif_cli.field import Field
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.progress import busy
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.empty_space import EmptySpace
from nif_cli.rendering.image_files import png_bytes, sheet
from nif_cli.rendering.images import overview, surface_image
from nif_cli.rendering.volume import RadianceField
from nif_cli.training import boards
from nif_cli.training.lightning import Training


class Preview(pl.Callback):
    """The first `shapes` instances, every `every_minutes` and at the end: an image (also preview.png in the
    run folder) and coarse meshes, for the loggers that take them: TensorBoard, wandb, mlflow."""

    def __init__(self, every_minutes: float = 1.0, resolution: int = 48, size: int = 128, shapes: int = 4):
        if not every_minutes > 0 or resolution < 2 or size < 8 or shapes < 1:
            raise ValueError(
                "every_minutes must be positive, resolution at least 2, size at least 8, shapes at least 1"
            )
        self.every, self.resolution, self.size, self.shapes = every_minutes * 60, resolution, size, shapes

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # the first one early, to see whether anything is learned at all
        self._shown = time.monotonic() - self.every + min(15.0, self.every)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        if time.monotonic() - self._shown > self.every:
            with busy("preview"):
                self.show(trainer, pl_module)
            self._shown = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with busy("preview"):
            self.show(trainer, pl_module)

    def show(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(training, Training)
        model = training.model
        model.eval()
        images = []
        pose = turntable(1)[0]
        for id in list(model.instances)[: self.shapes]:
            field = model.field(id)
            scene = model.instances[id].scene
            if scene is not None:
                view = (scene.test or scene.train)[0].resized(self.size)
                images.append(scene.photograph(cast("RadianceField", field), view, model.device).image("rgb"))
                continue
            if not isinstance(field, Field):
                images.append(overview(field, model.instances[id].transform, 256, model.device))
                continue
            if field.bounds.shape[1] == 3:
                empty = EmptySpace(field, 40, model.device)
                images.append(surface_image(field, pose, self.size, model.device, antialias=1, empty=empty))
            if boards.take_meshes(trainer.loggers) and field.bounds.shape[1] == 3:
                try:
                    mesh = extract_mesh(field, self.resolution, device=model.device)
                except NifError:  # diverged: the training itself will say so
                    continue
                if len(mesh.faces):
                    boards.show_mesh(trainer.loggers, id, mesh, trainer.global_step)
        model.train()
        # of scenes, each has its own proportions
        images = [p for p in images if p.shape == images[0].shape]
        if images:
            image = sheet(images, min(len(images), 4))
            boards.show_image(trainer.loggers, "surfaces", image, trainer.global_step)
            runs.write(Path(trainer.default_root_dir) / "preview.png", png_bytes(image))
