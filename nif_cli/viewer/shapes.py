"""The page of a run of shapes: a mesh that becomes finer, a plane through the field, codes to be moved."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from nif_cli.field import Field
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.writing import mesh_bytes
from nif_cli.schemas import ViewRuns
from nif_cli.viewer.menu import Menu
from nif_cli.viewer.shading import shaded, shadings
from nif_cli.viewer.slices import slice_image, slice_values, spacing
from nif_cli.viewer.worker import Check, Worker

COARSE = 40  # grid points a side of the first mesh
PLANE = 256  # points a side of the plane
NORMAL_TO = {"x": (0, 90, 0), "y": (-90, 0, 0), "z": (0, 0, 0)}  # how z is turned there, degrees


class ShapePage:
    """Everything lies in normalised space, whatever the units of an instance are: all appear alike."""

    def __init__(self, server: Any, menu: Menu, config: ViewRuns, worker: Worker):
        self.server, self.menu, self.worker, self.device = server, menu, worker, menu.run.device
        self.field = self._known(menu.names[0])
        self.mesh: tuple[tuple[Any, ...], trimesh.Trimesh] | None = None  # the last, and what it is of
        server.scene.set_up_direction("+y")
        server.initial_camera.position, server.initial_camera.look_at = (1.6, 1.1, 2.2), (0.0, 0.0, 0.0)
        gui = server.gui
        self.status = gui.add_markdown("...")
        self.instance = gui.add_dropdown("instance", menu.names, initial_value=menu.names[0])
        self.resolution = gui.add_slider("resolution", 16, max(256, config.resolution), 8, config.resolution)
        reach = self._reach()
        self.level = gui.add_slider("level", -reach, reach, reach / 100, 0.0, hint="above the field's own")
        kinds = shadings(self.field)
        self.shading = gui.add_dropdown("shading", kinds, initial_value=kinds[0])
        self.wire = gui.add_checkbox("wireframe", False)
        self._add_plane(gui)
        self._add_codes(gui)
        for handle in (self.resolution, self.shading, self.wire):
            handle.on_update(lambda _: self.renew())
        self.level.on_update(lambda _: self._moved())
        self.instance.on_update(lambda _: self._chosen())
        self.renew()

    def _known(self, name: str) -> Field:
        field = self.menu.field(name)
        assert isinstance(field, Field)
        return field

    def _reach(self) -> float:
        """Of the level's slider: as far as distances are known, or as logits and densities usually go."""
        cut = self.field.truncation
        if cut > 0:
            return min(0.9 * cut, 0.3)
        return 5.0 if self.field.level <= 0 else float(f"{0.95 * self.field.level:.2g}")

    def _add_plane(self, gui: Any) -> None:
        with gui.add_folder("plane"):
            self.plane = gui.add_checkbox("show", False, hint="the field's values, with isolines")
            self.normal = gui.add_dropdown("across", list(NORMAL_TO), initial_value="z")
            self.offset = gui.add_slider("offset", -1.0, 1.0, 0.01, 0.0)
            self.clip = gui.add_checkbox("cut the shape", True, hint="what lies before the plane is left out")
        self.gizmo = self.server.scene.add_transform_controls("/plane", scale=0.4, visible=False)
        self.gizmo.on_update(lambda _: self._moved())
        for handle in (self.normal, self.offset):
            handle.on_update(lambda _: self._placed())
        self.plane.on_update(lambda _: self._placed())
        self.clip.on_update(lambda _: self._moved())

    def _add_codes(self, gui: Any) -> None:
        self.codes = self.menu.codes
        if self.codes is None:
            return
        names = self.menu.names
        with gui.add_folder("codes"):
            self.other = gui.add_dropdown("towards", names, initial_value=names[1 % len(names)])
            self.share = gui.add_slider("share", 0.0, 1.0, 0.02, 0.0)
            self.steps = [
                gui.add_slider(f"direction {k + 1}", -3.0, 3.0, 0.1, 0.0, hint="in standard deviations")
                for k in range(len(self.codes.directions))
            ]
            draw, back = gui.add_button("random draw"), gui.add_button("back to the instance")
        draw.on_click(lambda _: self._set([max(-3.0, min(3.0, random.gauss(0, 1))) for _ in self.steps]))
        back.on_click(lambda _: self._set([0.0 for _ in self.steps], 0.0))
        for handle in (self.other, self.share, *self.steps):
            handle.on_update(lambda _: self._chosen())

    def _set(self, steps: list[float], share: float | None = None) -> None:
        if share is not None:
            self.share.value = share
        for handle, value in zip(self.steps, steps, strict=True):
            handle.value = round(value, 1)
        self._chosen()

    def _chosen(self) -> None:
        """Another field: it is made where things are computed, as a run may have to adapt to it first."""

        def job(check: Check) -> None:
            self.field = self._wished()
            kinds = shadings(self.field)
            if list(self.shading.options) != kinds:
                self.shading.options = kinds
            self.renew()
            self._moved()

        self.worker.submit("field", job, urgent=True)

    def _wished(self) -> Field:
        if self.codes is not None:
            steps = [h.value for h in self.steps]
            if any(steps) or self.share.value > 0:
                return self.codes.field(self.instance.value, self.other.value, self.share.value, steps)
        return self._known(self.instance.value)

    def renew(self) -> None:
        """The mesh again: coarse at once, then as fine as the slider says."""
        began = time.monotonic()
        field, level = self.field, self.field.level + self.level.value
        finest = int(self.resolution.value)

        def job(check: Check) -> None:
            for resolution in sorted({min(COARSE, finest), finest}):
                wish = (field, level, resolution)
                if self.mesh is None or self.mesh[0] != wish:
                    check()
                    made = extract_mesh(
                        field,
                        resolution,
                        level=level,
                        device=self.device,
                        progress=lambda done, left: check(),
                    )
                    self.mesh = wish, made
                elif resolution < finest:
                    continue
                self._show(field, self.mesh[1], resolution, time.monotonic() - began)

        if self.mesh is not None and self.mesh[0] == (field, level, finest):  # only its colours are new

            def job(check: Check) -> None:
                assert self.mesh is not None
                self._show(field, self.mesh[1], finest, time.monotonic() - began)

        self.worker.submit("mesh", job)

    def _show(self, field: Field, mesh: trimesh.Trimesh, resolution: int, seconds: float) -> None:
        scene = self.server.scene
        if not len(mesh.faces):
            for name in ("/shape", "/wire"):
                scene.remove_by_name(name) if scene.get_handle_by_name(name) else None
            self.status.content = f"no surface at this level ({resolution}³)"
            return
        mesh = self._cut(mesh)
        how = self.shading.value
        colours = shaded(field, mesh, how, self.device)
        dressed = trimesh.Trimesh(
            mesh.vertices,
            mesh.faces,
            vertex_colors=colours,
            vertex_normals=mesh.vertex_normals,
            process=False,
        )
        with self.server.atomic():
            scene.add_glb("/shape", mesh_bytes(dressed, "glb"))
            if self.wire.value:
                scene.add_mesh_simple(
                    "/wire",
                    np.asarray(mesh.vertices, np.float32),
                    np.asarray(mesh.faces, np.uint32),
                    color=(30, 30, 30),
                    wireframe=True,
                    cast_shadow=False,
                )
            elif scene.get_handle_by_name("/wire"):
                scene.remove_by_name("/wire")
        self.status.content = f"{resolution}³: {len(mesh.faces):,} faces, {seconds:.1f} s"

    def _cut(self, mesh: trimesh.Trimesh) -> trimesh.Trimesh:
        """What lies behind the plane, where it cuts."""
        if not (self.plane.value and self.clip.value):
            return mesh
        pose = self._pose()
        side = (np.asarray(mesh.vertices) - pose[:, 3]) @ pose[:, 2]
        kept = (side[mesh.faces] <= 0).any(1)
        part = trimesh.Trimesh(mesh.vertices, mesh.faces[kept], process=False)
        part.vertex_normals = mesh.vertex_normals
        return part if kept.any() else mesh

    def _pose(self) -> np.ndarray:
        """The plane: across, down, its normal | its middle, [3, 4]."""
        w, x, y, z = self.gizmo.wxyz
        return np.concatenate(
            (Rotation.from_quat([x, y, z, w]).as_matrix(), np.asarray(self.gizmo.position)[:, None]), 1
        )

    def _placed(self) -> None:
        """The plane is where the sliders say; the gizmo moves it from there."""
        turn = Rotation.from_euler("xyz", NORMAL_TO[self.normal.value], degrees=True)
        x, y, z, w = turn.as_quat()
        self.gizmo.wxyz = (w, x, y, z)
        self.gizmo.position = turn.apply([0, 0, self.offset.value])
        self.gizmo.visible = self.plane.value
        self._moved()

    def _moved(self) -> None:
        """The plane's values anew, and the mesh where it is cut there."""
        if self.plane.value:
            self.worker.submit("plane", self._sliced, urgent=True)
        self.renew()

    def _sliced(self, check: Check) -> None:
        field, pose, level = self.field, self._pose(), self.field.level + self.level.value
        half = float(field.bounds.abs().max())
        for size in (PLANE // 4, PLANE):
            check()
            values = slice_values(field, pose, half, size, self.device)
            step = spacing(values, level)
            image = slice_image(values, level, step)
            self.server.scene.add_image("/plane/values", image, 2 * half, 2 * half, format="png")
        self.offset.label = f"offset (a line every {step:g})"
