"""The triangles of a glTF 2.0 scene (Khronos 2021), .gltf or .glb: nodes, instances, strips and fans, sparse
and quantised accessors. Materials, skins and animations are not looked at."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.files import available_memory
from nif_cli.geometry.ply import strip_triangles
from nif_cli.geometry.polygons import Polygons
from nif_cli.untrusted import numbers, one_line, regular, shown, text, whole

TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
PACKED = {
    "KHR_draco_mesh_compression": "Draco",
    "EXT_meshopt_compression": "meshopt",
    "KHR_meshopt_compression": "meshopt",
}
SAFE = (
    "KHR_mesh_quantization",
    "KHR_texture_",
    "KHR_materials_",
    "EXT_texture_",
    "KHR_lights",
    "MSFT_texture",
    "KHR_animation",
)


def read_gltf(path: Path) -> Polygons:
    """All triangles of the default scene (of all roots where there is none), placed by their nodes in
    float64."""
    file = _Gltf(path)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    total, left_out = 0, 0
    for number, placed in file.nodes():
        for k, primitive in enumerate(
            file.list(file.get("meshes", number), "primitives", f"meshes[{number}]")
        ):
            where = f"meshes[{number}].primitives[{k}]"
            mode = whole(primitive.get("mode", 4), f"{path}: {where}.mode", 0, 6)
            if mode < 4:
                left_out += 1
                continue
            vertices, faces = file.triangles(primitive, mode, where)
            total += vertices.nbytes + faces.nbytes
            if 4 * total > available_memory():
                raise NifError(
                    f"{path}: its nodes repeat meshes to more than {total / 2**30:.1f} GiB, which does not "
                    "fit in memory"
                )
            if len(faces):
                with np.errstate(all="ignore"):
                    vertices = vertices @ placed[:3, :3].T + placed[:3, 3]
                parts.append((vertices, faces if np.linalg.det(placed[:3, :3]) >= 0 else faces[:, ::-1]))
    if not parts:
        what = "points or lines and no triangles" if left_out else "no triangles in its scene"
        raise NifError(f"{path}: it holds {what}")
    starts = np.cumsum([0] + [len(v) for v, _ in parts[:-1]])
    faces = np.concatenate([f + start for (_, f), start in zip(parts, starts, strict=True)])
    notes = [f"{left_out} of its primitives are points or lines: left out"] if left_out else []
    return Polygons(
        np.concatenate([v for v, _ in parts]), faces.reshape(-1), np.full(len(faces), 3), notes=notes
    )


class _Gltf:
    def __init__(self, path: Path):
        self.path, self.chunk = path, None
        data = path.read_bytes()
        if not data.strip():
            raise NifError(f"{path}: not glTF: the file is empty")
        if data[:4] == b"glTF":
            data = self._glb(data)
        try:
            self.tree = json.loads(data.decode("utf-8-sig"))
        except ValueError as error:
            if path.suffix.lower() == ".glb" and not data.lstrip().startswith(b"{"):
                raise NifError(f"{path}: no GLB file: it does not begin with 'glTF'") from error
            raise NifError(f"{path}: its JSON is damaged ({one_line(error, 100)})") from error
        if not isinstance(self.tree, dict):
            raise NifError(f"{path}: not glTF: its JSON holds no object")
        version = str((self.tree.get("asset") or {}).get("version", ""))
        if not version.startswith("2"):
            raise NifError(f"{path}: glTF {shown(version) or 'without a version'}; version 2 is read")
        for name in self.list(self.tree, "extensionsRequired", "", dict_only=False):
            if name in PACKED:
                raise NifError(
                    f"{path}: compressed with {PACKED[name]}, which is not read; export it without "
                    "compression"
                )
            if not str(name).startswith(SAFE):
                raise NifError(
                    f"{path}: it requires the extension '{shown(name)}', which is not read; export it without"
                )
        self.buffers: dict[int, bytes] = {}

    def _glb(self, data: bytes) -> bytes:
        length = int.from_bytes(data[8:12], "little")
        if len(data) < 20 or int.from_bytes(data[4:8], "little") != 2 or length > len(data):
            raise NifError(
                f"{self.path}: truncated, or no GLB of version 2: {length:,} bytes are announced, "
                f"{len(data):,} are there"
            )
        found, at = {}, 12
        while at + 8 <= length:
            size, kind = int.from_bytes(data[at : at + 4], "little"), data[at + 4 : at + 8]
            if at + 8 + size > length:
                raise NifError(
                    f"{self.path}: truncated: a chunk announces {size:,} bytes, {length - at - 8:,} are there"
                )
            found.setdefault(kind, data[at + 8 : at + 8 + size])
            at += 8 + size
        self.chunk = found.get(b"BIN\0")
        return found.get(b"JSON", b"")

    def list(self, node: dict, key: str, where: str, dict_only: bool = True) -> list:
        """The list at `key`, empty where there is none."""
        found = node.get(key, [])
        if not isinstance(found, list) or (dict_only and not all(isinstance(item, dict) for item in found)):
            raise NifError(
                f"{self.path}: {where}{'.' * bool(where)}{key} is no list" + " of objects" * dict_only
            )
        return found

    def get(self, key: str, index: Any) -> dict:
        """tree[key][index]; NifError where there is none."""
        found = self.list(self.tree, key, "")
        number = whole(index, f"{self.path}: an index into {key}", 0)
        if number >= len(found):
            raise NifError(f"{self.path}: it names {key}[{number}], and there are {len(found)}")
        return found[number]

    def nodes(self) -> list[tuple[int, np.ndarray]]:
        """(mesh, its placement [4, 4]) of every node of the scene that has one."""
        nodes = self.list(self.tree, "nodes", "")
        if self.list(self.tree, "scenes", ""):
            roots = self.list(
                self.get("scenes", self.tree.get("scene", 0)), "nodes", "scenes", dict_only=False
            )
        else:
            children = {
                c
                for n in nodes
                for c in self.list(n, "children", "nodes", dict_only=False)
                if isinstance(c, int)
            }
            roots = [i for i in range(len(nodes)) if i not in children]
        found, seen = [], set()
        waiting = [(root, np.eye(4)) for root in reversed(roots)]
        while waiting:
            index, above = waiting.pop()
            node = self.get("nodes", index)
            if index in seen:
                raise NifError(f"{self.path}: nodes[{index}] has two parents, or is its own")
            seen.add(index)
            placed = above @ self._placement(node, f"{self.path}: nodes[{index}]")
            if "mesh" in node:
                found.append((whole(node["mesh"], f"{self.path}: nodes[{index}].mesh"), placed))
            waiting += [
                (c, placed) for c in reversed(self.list(node, "children", f"nodes[{index}]", dict_only=False))
            ]
        return found

    @staticmethod
    def _placement(node: dict, where: str) -> Float[np.ndarray, "4 4"]:
        if "matrix" in node:
            return numbers(node["matrix"], f"{where}.matrix", (16,)).reshape(4, 4).T
        x, y, z, w = numbers(node.get("rotation", [0, 0, 0, 1]), f"{where}.rotation", (4,))
        norm = np.sqrt(x * x + y * y + z * z + w * w)
        if not norm > 0:
            raise NifError(f"{where}.rotation is zero; it must be a unit quaternion")
        x, y, z, w = x / norm, y / norm, z / norm, w / norm
        placed = np.eye(4)
        placed[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        placed[:3, :3] *= numbers(node.get("scale", [1, 1, 1]), f"{where}.scale", (3,))
        placed[:3, 3] = numbers(node.get("translation", [0, 0, 0]), f"{where}.translation", (3,))
        return placed

    def triangles(self, primitive: dict, mode: int, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Vertices [V, 3] and faces [T, 3] of one primitive of mode 4 (triangles), 5 (strip) or 6 (fan)."""
        attributes = primitive.get("attributes")
        if not isinstance(attributes, dict) or "POSITION" not in attributes:
            return np.empty((0, 3)), np.empty((0, 3), np.int64)
        packed = [PACKED[n] for n in primitive.get("extensions") or {} if n in PACKED]
        if packed and "bufferView" not in self.get("accessors", attributes["POSITION"]):
            raise NifError(
                f"{self.path}: compressed with {packed[0]}, which is not read; export it without compression"
            )
        vertices = self.accessor(attributes["POSITION"], "VEC3")
        if "indices" in primitive:
            index = self.accessor(primitive["indices"], "SCALAR").reshape(-1).astype(np.int64)
        else:
            index = np.arange(len(vertices))
        if len(index) and index.max() >= len(vertices):
            face = int((index >= len(vertices)).argmax()) // 3 + 1
            raise NifError(
                f"{self.path}: {where}: face {face} names vertex {index.max()}, and there are "
                f"{len(vertices)} (0 to {len(vertices) - 1})"
            )
        if mode > 4:
            return vertices, strip_triangles(index, mode == 6)
        if len(index) % 3:
            raise NifError(f"{self.path}: {where}: {len(index)} corners are no whole number of triangles")
        return vertices, index.reshape(-1, 3)

    def accessor(self, number: Any, type: str) -> np.ndarray:
        """The values [N, width] of an accessor, as float64 (positions) or as they are."""
        accessor, where = self.get("accessors", number), f"{self.path}: accessors[{number}]"
        if accessor.get("type") != type:
            raise NifError(f"{where}.type is {shown(repr(accessor.get('type')))}; it must be {type}")
        count = whole(accessor.get("count"), f"{where}.count", 0)
        kind, width = self._kind(accessor, where), WIDTHS[type]
        if 16 * count * width > available_memory():
            raise NifError(f"{where}.count is {count:,}: does not fit in memory")
        if "bufferView" in accessor:
            values = self._view(
                accessor["bufferView"], accessor.get("byteOffset", 0), kind, count, width, where
            )
        else:
            values = np.zeros((count, width), kind)
        sparse = accessor.get("sparse")
        if isinstance(sparse, dict):
            n = whole(sparse.get("count"), f"{where}.sparse.count", 0, count)
            i, v = sparse.get("indices") or {}, sparse.get("values") or {}
            rows = self._view(i.get("bufferView"), i.get("byteOffset", 0), self._kind(i, where), n, 1, where)[
                :, 0
            ]
            if n and rows.max() >= count:
                raise NifError(f"{where}.sparse names row {rows.max()}, and there are {count}")
            values = values.copy()
            values[rows.astype(np.int64)] = self._view(
                v.get("bufferView"), v.get("byteOffset", 0), kind, n, width, where
            )
        if type == "SCALAR":
            return values
        largest = float(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else 1.0
        return (
            np.maximum(values / largest, -1.0)
            if accessor.get("normalized") is True
            else values.astype(np.float64)
        )

    @staticmethod
    def _kind(accessor: dict, where: str) -> np.dtype:
        kind = accessor.get("componentType")
        if not isinstance(kind, int) or kind not in TYPES:
            raise NifError(
                f"{where}.componentType is {shown(repr(kind))}; it must be one of "
                f"{', '.join(map(str, TYPES))}"
            )
        return np.dtype(TYPES[kind])

    def _view(
        self, number: Any, offset: Any, kind: np.dtype, count: int, width: int, where: str
    ) -> np.ndarray:
        view = self.get("bufferViews", number)
        if packed := [PACKED[n] for n in view.get("extensions") or {} if n in PACKED]:
            raise NifError(
                f"{self.path}: compressed with {packed[0]}, which is not read; export it without compression"
            )
        data = self.buffer(view.get("buffer"))
        start = whole(view.get("byteOffset", 0), f"{where}: byteOffset", 0, 2**40)
        length = whole(view.get("byteLength"), f"{where}: byteLength", 0, 2**40)
        first = whole(offset, f"{where}.byteOffset", 0, 2**40)
        item = kind.itemsize * width
        stride = whole(view.get("byteStride", item), f"{where}: byteStride", item, 2**16)
        if count and first + stride * (count - 1) + item > min(length, len(data) - start):
            raise NifError(
                f"{where}: truncated: {count:,} values do not fit into its "
                f"{max(0, min(length, len(data) - start)):,} bytes"
            )
        if not count:
            return np.empty((0, width), kind)
        return np.ndarray((count, width), kind, data, start + first, (stride, kind.itemsize))

    def buffer(self, number: Any) -> bytes:
        """The bytes of a buffer: the file's own, from its JSON, or of a file in the folder of this one."""
        buffer, index = self.get("buffers", number), int(number)
        if index not in self.buffers:
            where = f"{self.path}: buffers[{index}]"
            length = whole(buffer.get("byteLength"), f"{where}.byteLength", 0, 2**40)
            data = self._bytes(buffer, index, where)
            if len(data) < length:
                raise NifError(f"{where}: truncated: {length:,} bytes are announced, {len(data):,} are there")
            self.buffers[index] = data
        return self.buffers[index]

    def _bytes(self, buffer: dict, index: int, where: str) -> bytes:
        if "uri" not in buffer:
            if self.chunk is None or index:
                raise NifError(f"{where} has no uri, and there is no binary chunk for it")
            return self.chunk
        uri = text(buffer["uri"], f"{where}.uri", 2**31)
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except ValueError as error:
                raise NifError(f"{where}: its data is not base64") from error
        name = text(unquote(uri), f"{where}.uri")
        if "://" in name or name.startswith(("/", "\\")):
            raise NifError(
                f"{where}: '{shown(name)}' is outside the file's folder, where nothing is read; put it "
                "beside the file"
            )
        folder, found = self.path.parent.resolve(), (self.path.parent / name).resolve()
        if not found.is_relative_to(folder):
            raise NifError(
                f"{where}: '{shown(name)}' is outside the file's folder, where nothing is read; put it "
                "beside the file"
            )
        if not found.exists():
            raise NifError(
                f"{where}: its file '{shown(name)}' is missing; it belongs beside {self.path.name}"
            )
        if 4 * regular(found, "buffer of glTF").stat().st_size > available_memory():
            raise NifError(f"{where}: '{shown(name)}' does not fit in memory")
        return found.read_bytes()
