"""glTF 2.0 as a file (Khronos 2021): JSON or GLB, its buffers and accessors, sparse and quantised ones. What
a scene of it looks like: gltf.py."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from nif_cli import NifError
from nif_cli.files import available_memory
from nif_cli.untrusted import one_line, regular, shown, text, whole

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


class GltfFile:
    """One file, and the buffers that it names as they are asked for. Every method raises a NifError that
    names the place where the file contradicts itself."""

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
