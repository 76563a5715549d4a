"""Meshes out of files of OBJ, OFF, PLY and STL, as people have them: polygons of any size, relative indices,
strips, old line ends, names in any encoding. What is broken is refused with the place; nothing is guessed.

Written here because the libraries tried on such files (trimesh 4, meshio 5) fan concave polygons, take index
-1 or 0 for another vertex, fill what is missing with zeros, or stop at bytes that are not UTF-8. Only bytes
are read, never decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from nif_cli import NifError
from nif_cli.geometry.gltf import read_gltf
from nif_cli.geometry.ply import read_ply
from nif_cli.geometry.polygons import Polygons
from nif_cli.untrusted import reading, regular, shown

# in the head of an STL that nif wrote: add it to every vertex
ORIGIN = re.compile(rb"origin (\S+) (\S+) (\S+)")


def read_polygons(path: Path) -> Polygons:
    """The faces of one file, by its suffix. NifError names the file and what is wrong with it."""
    regular(path, "mesh file")
    suffix = path.suffix.lower()
    with reading(path, f"a mesh ({suffix[1:]})"):
        if suffix in (".glb", ".gltf"):
            return read_gltf(path)
        return _BYTES[suffix](path, path.read_bytes())


def _lines(data: bytes) -> list[bytes]:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", "replace").encode()
    return data.removeprefix(b"\xef\xbb\xbf").splitlines()  # \n, \r\n and \r alone


def statements(data: bytes) -> Iterator[tuple[int, list[bytes], bytes]]:
    """The lines of an OBJ file: number, words without comment, and as it stands. Of vertices and faces a line
    may go on in the next one."""
    kept = b""
    for number, line in enumerate(_lines(data), 1):
        words = (kept + line).partition(b"#")[0].split()
        kept = b""
        if words and words[0] in (b"v", b"vt", b"vn", b"f", b"fo") and words[-1].endswith(b"\\"):
            kept = b" ".join(words)[:-1] + b" "
        else:
            yield number, words, line


def _obj(path: Path, data: bytes) -> Polygons:
    """v and f lines. Indices count from 1, or backwards from the last vertex so far."""
    vertices: list[float] = []
    corners: list[int] = []
    sizes: list[int] = []
    places: list[int] = []
    for number, words, line in statements(data):
        if not words or words[0] not in (b"v", b"f", b"fo"):
            continue
        try:
            if words[0] == b"v":
                x, y, z = words[1:4]
                vertices += (float(x), float(y), float(z))
                continue
            count = len(vertices) // 3
            loop = [int(word.partition(b"/")[0]) for word in words[1:]]
        except ValueError as error:
            raise NifError(
                f"{path}: line {number}: '{_show(line)}' is no {'vertex' if words[0] == b'v' else 'face'}"
            ) from error
        if 0 in loop:
            raise NifError(
                f"{path}: line {number}: a face names vertex 0; OBJ counts from 1 (is the file 0-based?)"
            )
        if min(loop, default=1) < -count:
            raise NifError(
                f"{path}: line {number}: a face names vertex {min(loop)}, and {count} stand before it"
            )
        corners += [i - 1 if i > 0 else count + i for i in loop]
        sizes.append(len(loop))
        places.append(number)
    table, found = np.array(vertices, np.float64).reshape(-1, 3), np.array(corners, np.int64)
    if len(found) and found.max() >= len(table):
        face = int(np.searchsorted(np.cumsum(sizes), int((found >= len(table)).argmax()), side="right"))
        raise NifError(
            f"{path}: line {places[face]}: a face names vertex {found.max() + 1}, and the file has "
            f"{len(table)}"
        )
    return Polygons(table, found, np.array(sizes, np.int64), places=places)


def _off(path: Path, data: bytes) -> Polygons:
    """OFF in text, with colours, normals and so on behind the positions."""
    rows = [
        (n, words) for n, line in enumerate(_lines(data), 1) if (words := line.partition(b"#")[0].split())
    ]
    if rows and re.fullmatch(rb"(ST)?C?N?4?n?OFF", rows[0][1][0], re.IGNORECASE):
        name = rows[0][1].pop(0)
        if name[-4:-3] in (b"4", b"n"):
            raise NifError(f"{path}: {_show(name)}: vertices of other than three numbers")
        if rows[0][1][:1] == [b"BINARY"]:
            raise NifError(f"{path}: binary OFF is not read; save it as text, or as PLY")
        rows = rows if rows[0][1] else rows[1:]
    if not rows:
        raise NifError(f"{path}: truncated: no counts of vertices and faces")
    try:
        count, faces = (int(w) for w in rows[0][1][:2])
        if min(count, faces) < 0:
            raise ValueError
    except ValueError as error:
        raise NifError(
            f"{path}: line {rows[0][0]}: '{_show(b' '.join(rows[0][1]))}' is not how many vertices and faces"
        ) from error
    rows = rows[1:]
    if len(rows) < count + faces:
        there = f"{len(rows):,} vertices" if len(rows) < count else f"{len(rows) - count:,} faces"
        raise NifError(
            f"{path}: truncated: {count:,} vertices and {faces:,} faces are announced, it ends after {there}"
        )
    vertices, corners, sizes, places = [], [], [], []
    for number, words in rows[: count + faces]:
        try:
            if len(places) + len(vertices) < count:
                x, y, z = words[:3]
                vertices.append((float(x), float(y), float(z)))
                continue
            n = int(words[0])
            loop = [int(w) for w in words[1 : 1 + n]]
            if n < 0 or len(loop) != n:
                raise ValueError
        except ValueError as error:
            what = "vertex" if len(vertices) < count else "face"
            raise NifError(f"{path}: line {number}: '{_show(b' '.join(words))}' is no {what}") from error
        corners += loop
        sizes.append(n)
        places.append(number)
    table = np.array(vertices, np.float64).reshape(-1, 3)
    return Polygons(table, np.array(corners, np.int64), np.array(sizes, np.int64), places=places)


def _stl(path: Path, data: bytes) -> Polygons:
    """Binary or text; the origin that nif writes into the head of a file far from it is added."""
    announced = int.from_bytes(data[80:84], "little")
    text = data.lstrip()[:5].lower() == b"solid" and len(data) != 84 + 50 * announced
    if text and b"\0" not in data[:512]:
        return _stl_text(path, data)
    if len(data) < 84 or len(data) < 84 + 50 * announced:
        there = max(0, len(data) - 84) // 50
        raise NifError(
            f"{path}: truncated, or no STL file: {announced:,} triangles are announced, {there:,} are there"
        )
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    vertices = np.frombuffer(data, record, announced, 84)["corners"].reshape(-1, 3).astype(np.float64)
    origin = ORIGIN.search(data[:80])
    if origin:
        vertices += [float(w.strip(b"\0")) for w in origin.groups()]
    faces = len(vertices) // 3
    return Polygons(vertices, np.arange(3 * faces), np.full(faces, 3), single=not origin)


def _stl_text(path: Path, data: bytes) -> Polygons:
    vertices: list[float] = []
    sizes: list[int] = []
    before, ended = 0, False
    for number, line in enumerate(_lines(data), 1):
        words = line.split()
        key = words[0].lower() if words else b""
        if key == b"vertex":
            try:
                x, y, z = words[1:4]
                vertices += (float(x), float(y), float(z))
            except ValueError as error:
                raise NifError(f"{path}: line {number}: '{_show(line)}' is no vertex") from error
        elif key == b"endloop":
            sizes.append(len(vertices) // 3 - before)
            before = len(vertices) // 3
        elif key == b"endsolid":
            ended = True
        elif key == b"solid":
            ended = False
    if not ended or before != len(vertices) // 3:
        raise NifError(f"{path}: truncated: it ends after {len(sizes):,} facets without 'endsolid'")
    table = np.array(vertices, np.float64).reshape(-1, 3)
    return Polygons(table, np.arange(len(table)), np.array(sizes, np.int64))


def _show(line: bytes) -> str:
    return shown(line.decode("latin-1").strip(), 40)


_BYTES: dict[str, Callable[[Path, bytes], Polygons]] = {
    ".obj": _obj,
    ".off": _off,
    ".stl": _stl,
    ".ply": read_ply,
}
