"""PLY files (Turk 1994), in text and binary: faces of any number of corners, triangle strips, properties of
any kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nif_cli import NifError
from nif_cli.geometry.polygons import Polygons
from nif_cli.untrusted import shown

KINDS = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
}
KINDS |= {
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float32": "f4",
}
KINDS |= {"float64": "f8", "int64": "i8", "uint64": "u8"}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass
class Element:
    """One kind of thing in the file: its properties, each a name, the type of its values, and of its length
    if a list."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]]


def read_ply(path: Path, data: bytes) -> Polygons:
    """Faces and triangle strips of a PLY file."""
    order, elements, tables = read_tables(path, data)
    kinds = {name: kind for e in elements if e.name == "vertex" for name, kind, _ in e.properties}
    vertex = tables.get("vertex", {})
    if not {"x", "y", "z"} <= set(vertex):
        raise NifError(f"{path}: its header names no vertices with x, y and z")
    positions = np.stack([np.asarray(vertex[axis], np.float64) for axis in "xyz"], 1)
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    if lists := index_list(tables.get("face", {}))[1]:
        parts.append(lists)
    for name in ("tristrips", "trifans"):
        if lists := index_list(tables.get(name, {}))[1]:
            rows = np.split(lists[0], np.cumsum(lists[1])[:-1])
            cut = np.concatenate(
                [strip_triangles(piece, name == "trifans") for row in rows for piece in _pieces(row)] or [[]]
            )
            parts.append((cut.reshape(-1).astype(np.int64), np.full(cut.size // 3, 3)))
    corners, sizes = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Polygons(positions, corners, sizes, single=order != "" and {kinds[a] for a in "xyz"} == {"f4"})


def read_tables(path: Path, data: bytes) -> tuple[str, list[Element], dict[str, dict[str, Any]]]:
    """The byte order ('' for text), the elements, and of each its properties' values [N] (of a list all
    values in a row and the length of each)."""
    order, elements, start = read_header(path, data)
    source: Any = _Text(path, data[start:]) if order == "" else _Binary(path, data, start, order)
    return order, elements, {e.name: source.element(e) for e in elements}


def read_header(path: Path, data: bytes) -> tuple[str, list[Element], int]:
    """The byte order ('' for text), the elements, and where they begin. NifError for anything else."""
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0 or end > 2**20:
        raise NifError(f"{path}: not a PLY file: it has no header")
    elements: list[Element] = []
    order = None
    for line in data[:end].decode("latin-1").splitlines():
        words = line.split()
        try:
            if words[:1] == ["format"]:
                order = ORDERS[words[1]]
            elif words[:1] == ["element"]:
                elements.append(Element(words[1], int(words[2]), []))
                if elements[-1].count < 0 or words[1] in [e.name for e in elements[:-1]]:
                    raise ValueError
            elif words[:2] == ["property", "list"]:
                elements[-1].properties.append((words[4], KINDS[words[3]], KINDS[words[2]]))
            elif words[:1] == ["property"]:
                elements[-1].properties.append((words[2], KINDS[words[1]], None))
        except (KeyError, IndexError, ValueError) as error:
            raise NifError(f"{path}: its header says '{shown(line, 60)}', which is no line of PLY") from error
    if order is None:
        raise NifError(f"{path}: its header names no format (ascii, binary_little_endian, binary_big_endian)")
    if data[end + 10 : end + 12] == b"\r\n":
        return order, elements, end + 12
    return order, elements, end + 11


def strip_triangles(strip: np.ndarray, fan: bool = False) -> np.ndarray:
    """[T, 3] triangles of one strip (every second one turned, so that all face the same way) or fan of
    corners."""
    strip = np.asarray(strip, np.int64)
    if len(strip) < 3:
        return np.empty((0, 3), np.int64)
    if fan:
        return np.column_stack((np.full(len(strip) - 2, strip[0]), strip[1:-1], strip[2:]))
    cut = np.column_stack((strip[:-2], strip[1:-1], strip[2:]))
    cut[1::2] = cut[1::2, [1, 0, 2]]
    return cut[(cut[:, 0] != cut[:, 1]) & (cut[:, 1] != cut[:, 2]) & (cut[:, 2] != cut[:, 0])]


def _pieces(row: np.ndarray) -> list[np.ndarray]:
    """A list of strips: -1 ends one and begins the next."""
    return [piece[piece != -1] for piece in np.split(row, np.flatnonzero(row == -1))]


def index_list(table: dict[str, Any]) -> tuple[str, tuple[np.ndarray, np.ndarray] | None]:
    """The property of faces that names their corners, these in a row, and how many each face has."""
    named = [n for n in ("vertex_indices", "vertex_index") if n in table]
    lists = named or [n for n, values in table.items() if isinstance(values, tuple)]
    found = table[lists[0]] if lists else None
    return (lists[0], (found[0].astype(np.int64), found[1])) if isinstance(found, tuple) else ("", None)


class _Binary:
    def __init__(self, path: Path, data: bytes, start: int, order: str):
        self.path, self.data, self.at, self.order = path, data, start, order

    def element(self, e: Element) -> dict[str, Any]:
        """Each property's values [N]; of a list all values in a row and the length of each."""
        types = [
            (name, self.order + kind, None if n is None else self.order + n) for name, kind, n in e.properties
        ]
        if not types or e.count == 0:
            return {
                name: np.empty(0) if n is None else (np.empty(0, np.int64), np.empty(0, np.int64))
                for name, _, n in types
            }
        lengths = self._first(types)
        fields: list[tuple] = []
        for i, (_, kind, n) in enumerate(types):
            fields += [(f"n{i}", n), (f"v{i}", kind, (lengths[i],))] if n else [(f"v{i}", kind)]
        record = np.dtype(fields)
        if self.at + e.count * record.itemsize <= len(self.data):  # all lists as long as the first?
            table = np.frombuffer(self.data, record, e.count, self.at)
            if all((table[f"n{i}"] == lengths[i]).all() for i, (_, _, n) in enumerate(types) if n):
                self.at += e.count * record.itemsize
                return {
                    name: (table[f"v{i}"].reshape(-1), np.full(e.count, lengths[i])) if n else table[f"v{i}"]
                    for i, (name, _, n) in enumerate(types)
                }
        elif not any(n for _, _, n in types):
            there = max(0, len(self.data) - self.at) // record.itemsize
            raise NifError(
                f"{self.path}: truncated: {e.count:,} of '{shown(e.name)}' are announced, {there:,} are there"
            )
        return self._one_by_one(e, types)

    def _first(self, types: list[tuple[str, str, str | None]]) -> list[int]:
        """How long the lists of the first row are."""
        lengths, at = [], self.at
        for _, kind, n in types:
            length = 1
            if n:
                length = (
                    int(np.frombuffer(self.data, n, 1, at)[0])
                    if at + np.dtype(n).itemsize <= len(self.data)
                    else 0
                )
                at += np.dtype(n).itemsize
            length = length if 0 <= length <= len(self.data) else 0
            lengths.append(length)
            at += length * np.dtype(kind).itemsize
        return lengths

    def _one_by_one(self, e: Element, types: list[tuple[str, str, str | None]]) -> dict[str, Any]:
        values: list[list] = [[] for _ in types]
        lengths: list[list[int]] = [[] for _ in types]
        kinds = [(np.dtype(kind), None if n is None else np.dtype(n)) for _, kind, n in types]
        for row in range(e.count):
            for i, (kind, n) in enumerate(kinds):
                length = 1
                if n is not None:
                    if self.at + n.itemsize > len(self.data):
                        self._ends(e, row)
                    length = int(np.frombuffer(self.data, n, 1, self.at)[0])
                    self.at += n.itemsize
                if length < 0 or self.at + length * kind.itemsize > len(self.data):
                    self._ends(e, row)
                values[i].append(np.frombuffer(self.data, kind, length, self.at))
                lengths[i].append(length)
                self.at += length * kind.itemsize
        return {
            name: (np.concatenate(values[i]), np.array(lengths[i])) if n else np.concatenate(values[i])
            for i, (name, _, n) in enumerate(types)
        }

    def _ends(self, e: Element, row: int) -> None:
        raise NifError(
            f"{self.path}: truncated: {e.count:,} of '{shown(e.name)}' are announced, it ends after {row:,}"
        )


class _Text:
    def __init__(self, path: Path, data: bytes):
        self.path, self.words, self.at = path, data.split(), 0

    def element(self, e: Element) -> dict[str, Any]:
        """As of a binary file."""
        width, words = len(e.properties), self.words
        if not any(n for _, _, n in e.properties):
            there = (len(words) - self.at) // width if width else e.count
            if there < e.count:
                raise NifError(
                    f"{self.path}: truncated: {e.count:,} of '{shown(e.name)}' are announced, {there:,} "
                    "are there"
                )
            table = (
                np.array(words[self.at : self.at + e.count * width])
                .astype(np.float64)
                .reshape(e.count, width)
            )
            self.at += e.count * width
            return {name: table[:, i] for i, (name, _, _) in enumerate(e.properties)}
        values: list[list[float]] = [[] for _ in e.properties]
        lengths: list[list[int]] = [[] for _ in e.properties]
        for row in range(e.count):
            for i, (_, _, n) in enumerate(e.properties):
                length = 1
                if n is not None and self.at < len(words):
                    length = int(words[self.at])
                    self.at += 1
                if length < 0 or self.at + length > len(words) or (self.at >= len(words) and n is None):
                    raise NifError(
                        f"{self.path}: truncated: {e.count:,} of '{shown(e.name)}' are announced, it ends "
                        f"after {row:,}"
                    )
                values[i] += map(float, words[self.at : self.at + length])
                lengths[i].append(length)
                self.at += length
        return {
            name: (np.array(values[i]), np.array(lengths[i], np.int64)) if n else np.array(values[i])
            for i, (name, _, n) in enumerate(e.properties)
        }
