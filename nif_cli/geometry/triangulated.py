"""OBJ and PLY files written again with triangles only, each inside its polygon, and all else kept: materials,
colours, texture coordinates. For a reader of colours that would fan polygons out of themselves (trimesh)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nif_cli import NifError
from nif_cli.geometry.ply import KINDS, index_list, read_tables
from nif_cli.geometry.polygons import Polygons, triangles
from nif_cli.geometry.reading import read_polygons, statements
from nif_cli.untrusted import shown

Corners = np.ndarray  # [T, 3] of triangles: places in the row of all faces' corners


def triangulated(path: Path) -> bytes | None:
    """The file with triangles only, as bytes; None of a format without polygons or without colours. NifError
    as `read_polygons` and `triangles` say, and for texture coordinates or normals that are not there."""
    suffix = path.suffix.lower()
    if suffix == ".obj":
        return _obj(path, path.read_bytes())
    if suffix == ".ply":
        return _ply(path, path.read_bytes())
    return None


def _cut(given: Polygons, path: Path) -> Corners:
    """What covers each face, by the places of its corners: one vertex may have two texture coordinates."""
    triangles(given, path)  # checks that corners are vertices
    apart = Polygons(given.vertices[given.corners], np.arange(len(given.corners)), given.sizes)
    return triangles(apart, path)


def _obj(path: Path, data: bytes) -> bytes:
    cut = _cut(read_polygons(path), path)
    out: list[bytes | None] = []  # None: where a face stood
    words_of: list[bytes] = []  # of each corner of all faces
    counts = {b"v": 0, b"vt": 0, b"vn": 0}
    per_face: list[int] = []
    for number, words, line in statements(data):
        key = words[0] if words else b""
        if key in (b"f", b"fo"):
            words_of += [_absolute(path, number, word, counts) for word in words[1:]]
            per_face.append(max(0, len(words) - 3))
            out.append(None)
            continue
        if key in counts:
            counts[key] += 1
        out.append(b" ".join(words) if key in counts else line.strip())
    for word in set(words_of):
        for index, (key, what) in zip(word.split(b"/")[1:], _OTHER, strict=False):
            if index and int(index) > counts[key]:
                raise NifError(f"{path}: a face names {what} {int(index)}, and the file has {counts[key]}")
    rows = [b"f %b %b %b" % (words_of[a], words_of[b], words_of[c]) for a, b, c in cut.tolist()]
    lines, face, row = [], 0, 0
    for line in out:
        if line is not None:
            lines.append(line)
            continue
        lines += rows[row : row + per_face[face]]
        row += per_face[face]
        face += 1
    return utf8(b"\n".join([*lines, b""]))


def utf8(data: bytes) -> bytes:
    """Text that may be of another encoding: its bytes as Latin-1, if it is not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1").encode()
    return data


_OTHER = ((b"vt", "texture coordinate"), (b"vn", "normal"))


def _absolute(path: Path, number: int, word: bytes, counts: dict[bytes, int]) -> bytes:
    """v/vt/vn of a corner, counted from the file's first."""
    try:
        parts = [int(part) if part else None for part in word.split(b"/")]
    except ValueError as error:
        text = shown(word.decode("latin-1"), 40)
        raise NifError(f"{path}: line {number}: '{text}' is no corner") from error
    found = []
    for index, (key, what) in zip(parts, ((b"v", "vertex"), *_OTHER), strict=False):
        if index is not None and index < 0:
            index += counts[key] + 1
        if index is not None and index < 1:
            raise NifError(f"{path}: line {number}: a face names {what} {shown(word.decode('latin-1'))}")
        found.append(b"" if index is None else b"%d" % index)
    return b"/".join(found)


def _ply(path: Path, data: bytes) -> bytes | None:
    _, elements, tables = read_tables(path, data)
    face = next((e for e in elements if e.name == "face"), None)
    given = read_polygons(path)
    name, loops = index_list(tables.get("face", {}))
    if face is None or loops is None or len(loops[1]) != len(given.sizes):
        return None  # points, or triangle strips
    cut = _cut(given, path)
    owner = np.repeat(np.arange(len(given.sizes)), given.sizes)[cut[:, 0]]
    columns: list[tuple[str, np.ndarray]] = []
    head = ["ply", "format binary_little_endian 1.0", *_comments(data)]
    vertex = next(e for e in elements if e.name == "vertex")
    head.append(f"element vertex {vertex.count}")
    for property, kind, size in vertex.properties:
        if size is None:
            head.append(f"property {_WORDS[kind]} {property}")
            columns.append((kind, np.asarray(tables["vertex"][property])))
    body = _packed(columns, vertex.count)
    head += [f"element face {len(cut)}", f"property list uchar int {name}"]
    columns = [("u1", np.full(len(cut), 3)), ("i4", given.corners[cut])]
    for property, kind, size in face.properties:
        values: Any = tables["face"][property]
        if size is None:
            head.append(f"property {_WORDS[kind]} {property}")
            columns.append((kind, np.asarray(values)[owner]))
        elif property == "texcoord" and np.array_equal(values[1], 2 * given.sizes):
            head.append(f"property list uchar {_WORDS[kind]} {property}")
            columns += [("u1", np.full(len(cut), 6)), (kind, values[0].reshape(-1, 2)[cut].reshape(-1, 6))]
    return "\n".join([*head, "end_header", ""]).encode() + body + _packed(columns, len(cut))


_WORDS = {kind: word for word, kind in reversed(KINDS.items())}


def _packed(columns: list[tuple[str, np.ndarray]], count: int) -> bytes:
    record = np.dtype([(f"c{i}", f"<{kind}", values.shape[1:]) for i, (kind, values) in enumerate(columns)])
    table = np.empty(count, record)
    for i, (_, values) in enumerate(columns):
        table[f"c{i}"] = values
    return table.tobytes()


def _comments(data: bytes) -> list[str]:
    """Those of the header: one may name a texture."""
    lines = utf8(data[: data.find(b"end_header")]).decode().splitlines()
    return [line.strip() for line in lines if line.startswith("comment")]
