"""The page of a scene: what the camera of each who looks sees of it, coarse while it moves and whole once it
stands still; the training cameras; a camera path of key frames."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch

from nif_cli import NifError
from nif_cli.data.memory import keep_memory
from nif_cli.field import Field
from nif_cli.geometry.extraction import extract_mesh
from nif_cli.geometry.writing import mesh_bytes
from nif_cli.rendering.camera_paths import focus
from nif_cli.rendering.cameras import Camera
from nif_cli.rendering.image_files import scaled
from nif_cli.rendering.volume import RadianceField
from nif_cli.rendering.volume_view import CHANNELS, Photograph, photograph
from nif_cli.schemas import ViewRuns
from nif_cli.viewer.camera_path import KeyFrame, opengl_pose, vertical_fov, viser_wxyz
from nif_cli.viewer.menu import Menu
from nif_cli.viewer.path_panel import PathPanel, stand
from nif_cli.viewer.shading import shaded
from nif_cli.viewer.worker import Check, Worker

BUDGET = 0.2  # seconds a frame takes while the camera moves
STILL = 0.3  # seconds after which it stands still
LEAST, FIRST = 24, 80  # pixels along the longest side: of a moving image at least, and of the first
MOST_CAMERAS = 120  # frusta


class ScenePage:
    """Cameras lie in normalised space; all clients share the panel, each has a camera of its own."""

    def __init__(self, server: Any, menu: Menu, config: ViewRuns, worker: Worker):
        self.server, self.menu, self.worker, self.config = server, menu, worker, config
        self.device = menu.run.device
        if self.device.type == "cpu":
            keep_memory()
        self.rate = 0.0  # rays a second
        self.moved: dict[int, float] = {}  # when each camera last moved
        self._choose(menu.names[0])
        gui = server.gui
        self.status = gui.add_markdown("...")
        self.instance = gui.add_dropdown("instance", menu.names, initial_value=menu.names[0])
        self.channel = gui.add_dropdown("channel", list(CHANNELS), initial_value="rgb")
        self.size = gui.add_slider("size", 64, max(800, config.size), 16, config.size)
        self.frusta = gui.add_checkbox("training cameras", False)
        self.overlay = gui.add_checkbox("mesh of the density", False)
        self.path = PathPanel(server, menu, config, lambda: (self.instance.value, self.scene.transform))
        self.instance.on_update(lambda _: self._other())
        for handle in (self.channel, self.size):
            handle.on_update(lambda _: self.renew())
        self.frusta.on_update(lambda _: self._show_cameras())
        self.overlay.on_update(lambda _: self._show_mesh())
        self._aim()
        server.on_client_connect(self._connected)
        server.on_client_disconnect(lambda client: self._gone(client.client_id))

    def _choose(self, name: str) -> None:
        field, known = self.menu.field(name), self.menu.run.model.instances[name]
        assert isinstance(field, RadianceField)
        assert known.scene is not None
        self.field, self.scene = field, known.scene

    def _other(self) -> None:
        self._choose(self.instance.value)
        self._show_cameras()
        self._show_mesh()
        self.renew()

    def _aim(self) -> None:
        """Clients begin at the first training camera, and turn about what all of them look at."""
        views = self.scene.train or self.scene.test
        poses = np.stack([v.pose.double().numpy() for v in views])
        first, camera = poses[0], self.server.initial_camera
        self.server.scene.set_up_direction(tuple(map(float, self.scene.up)))
        ahead = float((focus(poses) - first[:, 3]) @ -first[:, 2])
        camera.position = tuple(first[:, 3])
        camera.look_at = tuple(first[:, 3] - (ahead if ahead > 0 else 1.0) * first[:, 2])
        lens = views[0].camera
        camera.fov = math.radians(min(120.0, vertical_fov(lens.fy, lens.height)))

    def _connected(self, client: Any) -> None:
        client.camera.on_update(lambda _: self._moves(client))
        self._moves(client)

    def _gone(self, client: int) -> None:
        self.moved.pop(client, None)
        for key in (("frame", client), ("still", client)):
            self.worker.forget(key)

    def _moves(self, client: Any) -> None:
        self.moved[client.client_id] = time.monotonic()
        self.worker.submit(("frame", client.client_id), lambda _: self._frame(client), urgent=True)
        self.worker.submit(("still", client.client_id), lambda check: self._whole(client, check))

    def renew(self) -> None:
        """The images of all anew."""
        for client in self.server.get_clients().values():
            self._moves(client)

    def _frame(self, client: Any) -> None:
        """As many pixels as the time for a frame allows."""
        longest = FIRST if not self.rate else int(math.sqrt(self.rate * BUDGET))
        longest = max(LEAST, min(longest, int(self.size.value)))
        began = time.monotonic()
        image = self._look(client, longest)
        took = time.monotonic() - began
        now = image.depth.numel() / max(took, 1e-3)
        # slower counts at once, faster by and by: what is empty is fast
        self.rate = min(now, 1.5 * self.rate) if self.rate else min(now, image.depth.numel() / BUDGET)
        self._send(client, image, "jpeg")
        self.status.content = f"{image.depth.shape[1]} x {image.depth.shape[0]}, {took:.2f} s"

    def _whole(self, client: Any, check: Check) -> None:
        """All pixels, once the camera stands still; given up when it moves."""
        while time.monotonic() - self.moved.get(client.client_id, 0.0) < STILL:
            check()
            time.sleep(0.02)
        began = time.monotonic()
        image = self._look(client, int(self.size.value), check)
        self._send(client, image, "png")
        self.status.content = (
            f"{image.depth.shape[1]} x {image.depth.shape[0]}, {time.monotonic() - began:.2f} s, whole"
        )

    def _look(self, client: Any, longest: int, check: Check | None = None) -> Photograph:
        camera = client.camera
        pose, fov, aspect = opengl_pose(camera.wxyz, camera.position), float(camera.fov), float(camera.aspect)
        width, height = scaled(max(aspect, 1e-3), 1.0, longest)
        focal = 0.5 * height / math.tan(0.5 * min(max(fov, 1e-2), 3.0))
        lens = Camera(width, height, focal, focal, width / 2, height / 2)
        scene = self.scene
        return photograph(
            self.field,
            torch.from_numpy(pose).float(),
            lens,
            scene.near if scene.ndc is not None else min(scene.near, 0.05),
            scene.far,
            ndc=scene.ndc,
            background=scene.background,
            scale=scene.transform.scale,
            normals=self.channel.value == "normal",
            device=self.device,
            progress=None if check is None else lambda _: check(),
        )

    def _send(self, client: Any, image: Photograph, format: str) -> None:
        """The image behind everything; where there are lines and meshes, with how far away it is, as viser
        measures: along the camera's axis, in normalised space."""
        depth = None
        if self.frusta.value or self.overlay.value:
            height, width = image.depth.shape
            focal = 0.5 * height / math.tan(0.5 * float(client.camera.fov))
            v, u = np.mgrid[:height, :width] + 0.5
            slant = np.sqrt(((u - width / 2) / focal) ** 2 + ((v - height / 2) / focal) ** 2 + 1)
            depth = image.depth.numpy() * self.scene.transform.scale / slant
            depth = np.where(np.isfinite(depth), depth, 160.0).astype(np.float32)
        quality = 85 if format == "jpeg" else None
        seen = image.image(self.channel.value)
        client.scene.set_background_image(seen, format, jpeg_quality=quality, depth=depth)

    def _show_cameras(self) -> None:
        scene = self.server.scene
        if scene.get_handle_by_name("/cameras"):
            scene.remove_by_name("/cameras")
        if self.frusta.value:
            views = self.scene.train
            size = 0.05 * float((self.scene.bounds[1] - self.scene.bounds[0]).max())
            scene.add_frame("/cameras", show_axes=False)
            for view in views[:: max(1, math.ceil(len(views) / MOST_CAMERAS))]:
                pose, lens = view.pose.double().numpy(), view.camera
                handle = scene.add_camera_frustum(
                    f"/cameras/{view.name.strip('/').replace('/', '_')}",
                    math.radians(vertical_fov(lens.fy, lens.height)),
                    lens.width / lens.height,
                    scale=size,
                    color=(40, 90, 160),
                    wxyz=viser_wxyz(pose),
                    position=tuple(pose[:, 3]),
                )
                handle.on_click(lambda event, pose=pose: stand(event.client, KeyFrame(pose, 0.0)))
        self.renew()

    def _show_mesh(self) -> None:
        field = self.field
        scene = self.server.scene
        if not self.overlay.value:
            if scene.get_handle_by_name("/mesh"):
                scene.remove_by_name("/mesh")
            self.renew()
            return

        def job(check: Check) -> None:
            if self.scene.ndc is not None:
                raise NifError("mesh: this scene lies in NDC; nif extract makes its mesh")
            assert isinstance(field, Field)
            for resolution in (48, self.config.resolution):
                mesh = extract_mesh(
                    field, resolution, device=self.device, progress=lambda done, left: check()
                )
                if len(mesh.faces):
                    mesh.visual.vertex_colors = shaded(field, mesh, "colour", self.device)  # type: ignore[union-attr]
                    mesh.vertex_normals  # noqa: B018  # cached, so that they are written
                    scene.add_glb("/mesh", mesh_bytes(mesh, "glb"))

        self.worker.submit("mesh", job)
        self.renew()
