"""Valid files made hostile: `mutate(path, rng)` spoils one in place and says how."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

Rng = np.random.Generator
CANARY = "CANARY"  # a file that only executed code makes, in the working folder
GIB = 2**30


class Payload:
    """What a pickle runs when it is read as one."""

    def __reduce__(self):
        return os.system, (f"touch {CANARY}",)

    def __deepcopy__(self, _: dict) -> Payload:
        return self  # a copy would be made by what it holds


def nested(depth: int, kind: type = list) -> Any:
    value: Any = kind()
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def hostile(rng: Rng) -> Any:
    """A value where another belongs."""
    values: list[Any] = [
        10**400,
        -1,
        0,
        1,
        2**31,
        2**63,
        -(2**63),
        10**9,
        1e308,
        -1e308,
        1e-320,
        0.5,
        float("nan"),
        float("inf"),
        -float("inf"),
        None,
        True,
        False,
        "",
        "x" * 10_000,
        "../../x",
        "/etc/passwd",
        "../../secret.png",
        "a\0b",
        "\x1b[31mred\x1b]0;title\x07",
        "nan",
        "1e999",
        "${oc.env:HOME}",
        "~",
        ".",
        "/",
        "a/b/c",
        "ä\u202e\u0000\ud7ff",
        [],
        {},
        [[]],
        [1, 2],
        {"a": 1},
        [None] * 5,
        [[1, 2], [3]],
        ["x"] * 1000,
        list(range(10_000)),
        nested(60),
        nested(60, dict),
        {"_target_": "os.system", "command": "touch CANARY"},
    ]
    return copy.copy(values[rng.integers(len(values))])


# ---- trees of plain values: JSON, YAML, checkpoints


def places(tree: Any, above: tuple = ()) -> list[tuple]:
    """The paths of all values below `tree`, its own left out."""
    found = []
    items = (
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    )
    for key, value in items:
        found += [(*above, key), *places(value, (*above, key))]
    return found


def spoil_tree(tree: Any, rng: Rng, value: Callable[[Rng, Any], Any]) -> tuple[Any, str]:
    """The tree with a value replaced, lost, doubled or renamed."""
    found = places(tree)
    if not found:
        return value(rng, tree), "the whole replaced"
    # shallow ones as often as deep ones: the many numbers of a matrix are all alike
    depth = rng.choice(sorted({len(p) for p in found}))
    same = [p for p in found if len(p) == depth]
    path = same[rng.integers(len(same))]
    tree = copy.deepcopy(tree) if not _has_tensors(tree) else _copied(tree)
    node = tree
    for key in path[:-1]:
        node = node[key]
    where = ".".join(map(str, path))[:80]
    if isinstance(node, tuple):
        return tree, "nothing"
    what = rng.choice(["replace", "replace", "replace", "lose", "double", "rename", "wrap"])
    last = path[-1]
    if what == "lose":
        del node[last]
    elif what == "double" and isinstance(node, list):
        node.insert(last, node[last])
    elif what == "rename" and isinstance(node, dict):
        node[str(rng.choice(["../x", "x" * 5000, "", "_target_", "a.b"]))] = node.pop(last)
    elif what == "wrap":
        node[last] = [node[last]]
    else:
        node[last] = value(rng, node[last])
        return tree, f"{where} = {str(node[last])[:40]!r}"
    return tree, f"{where}: {what}"


def _has_tensors(tree: Any) -> bool:
    return isinstance(tree, torch.Tensor) or any(
        _has_tensors(v)
        for v in (tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ())
    )


def _copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _copied(v) for k, v in tree.items()}
    return type(tree)(_copied(v) for v in tree) if type(tree) in (list, tuple) else tree


def plain_value(rng: Rng, old: Any) -> Any:
    if isinstance(old, int | float) and not isinstance(old, bool) and rng.random() < 0.3:
        return [-old, old * 1e30, old * 1e-30, old + 0.5, int(old) + 1, str(old)][rng.integers(6)]
    return hostile(rng)


def spoil_json(data: bytes, rng: Rng) -> tuple[bytes, str]:
    tree = json.loads(data)
    what = rng.integers(12)
    if what == 0:
        depth = int(rng.choice([1000, 100_000]))
        return b'{"frames":' * (depth // 2) + b"[" * depth, f"nested {depth} deep"
    if what == 1:
        return json.dumps(hostile(rng)).encode(), "another value"
    if what == 2:
        text = json.dumps(tree)
        numbers = list(re.finditer(r"-?\d+(\.\d+)?(e-?\d+)?", text))
        if numbers:
            m = numbers[rng.integers(len(numbers))]
            return (text[: m.start()] + "9" * 10_000 + text[m.end() :]).encode(), "a number of 10,000 digits"
    said = []
    for _ in range(rng.integers(1, 4)):
        tree, how = spoil_tree(tree, rng, plain_value)
        said.append(how)
    return json.dumps(tree).encode("utf-8", "surrogatepass"), "; ".join(said)


def spoil_yaml(data: bytes, rng: Rng) -> tuple[bytes, str]:
    tree = yaml.safe_load(data)
    what = rng.integers(10)
    if what == 0:
        bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        bomb += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
        return data + ("\n" + "\n".join(bomb) + "\n").encode(), "an anchor bomb"
    if what == 1:
        return b"[" * 5000, "nested 5000 deep"
    if what == 2:
        return data + f"\nx: !!python/object/apply:os.system ['touch {CANARY}']\n".encode(), "a tag of Python"
    said = []
    for _ in range(rng.integers(1, 3)):
        tree, how = spoil_tree(tree, rng, plain_value)
        said.append(how)
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"), "; ".join(said)


# ---- torch's files


def tensor_value(rng: Rng, old: Any) -> Any:
    if not isinstance(old, torch.Tensor):
        return plain_value(rng, old) if rng.random() < 0.9 else Payload()
    flat = old.detach().clone()
    what = rng.integers(10)
    if what == 0:  # a few bytes that stand for a gigabyte or more
        return torch.zeros(1, dtype=old.dtype).expand(int(rng.choice([2**28, 2**30, 2**33])))
    if what == 1 and old.dim():
        return flat[:1].expand(int(rng.choice([10**6, 10**9])), *flat.shape[1:]) if len(flat) else flat
    if what == 2:
        return torch.full_like(flat, float("nan")) if flat.is_floating_point() else flat - 2**20
    if what == 3:
        return flat.double() if flat.is_floating_point() else flat.float()
    if what == 4:
        return flat.reshape(-1)
    if what == 5:
        return flat.to(torch.complex64) if flat.is_floating_point() else flat.bool()
    if what == 6:
        return flat[:0] if flat.dim() else flat
    if what == 7:
        return flat[None]
    if what == 8:
        return flat.to_sparse() if flat.is_floating_point() and flat.dim() else flat
    return hostile(rng)


def spoil_torch(data: bytes, rng: Rng) -> tuple[bytes, str]:
    if rng.random() < 0.35:
        return spoil_zip(data, rng)
    tree = torch.load(io.BytesIO(data), weights_only=True)
    said = []
    for _ in range(rng.integers(1, 3)):
        tree, how = spoil_tree(tree, rng, tensor_value)
        said.append(how)
    out = io.BytesIO()
    torch.save(tree, out, _use_new_zipfile_serialization=bool(rng.random() < 0.95))
    return out.getvalue(), "; ".join(said)


# ---- zip


@functools.cache
def zeros(size: int) -> tuple[bytes, int]:
    """A raw deflate stream of so many zeros (a multiple of 64 MiB), and its checksum."""
    part = bytes(2**26)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    once, crc = packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH), 0
    for _ in range(size // 2**26):
        crc = zlib.crc32(part, crc)
    return once * (size // 2**26) + zlib.compressobj(9, zlib.DEFLATED, -15).flush(), crc


def npy_header(shape: Any, descr: Any = "<f4", extra: str = "") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, {extra}}}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@functools.cache
def bomb_member(size: int = 3 * GIB) -> tuple[bytes, int, int]:
    """An npy of zeros, packed: the stream, its checksum and its size."""
    head = npy_header((size // 4,))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    stream, _ = zeros(size)
    crc, part = zlib.crc32(head), bytes(2**26)
    for _ in range(size // 2**26):
        crc = zlib.crc32(part, crc)
    return first + stream, crc, len(head) + size


def raw_zip(members: list[tuple[str, bytes, int, int]]) -> bytes:
    """A zip of streams that are deflated already: (name, stream, checksum, size)."""
    out, directory = bytearray(), bytearray()
    for name, stream, crc, size in members:
        at, n = len(out), name.encode()
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(stream), size, len(n), 0)
        out += b"PK\x03\x04" + fields + n + stream
        directory += (
            b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, at) + n
        )
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(out), 0)
    return bytes(out + directory) + b"PK\x05\x06" + end


def spoil_zip(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Members truncated, flipped (with a good checksum), lost, doubled, renamed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(e.filename, archive.read(e)) for e in archive.infolist()]
    k = int(rng.integers(len(members)))
    name, content = members[k]
    what = rng.choice(["truncate", "flip", "flip", "lose", "double", "rename", "empty", "pickle"])
    if what == "truncate":
        members[k] = (name, content[: rng.integers(len(content) + 1)])
    elif what == "flip":
        members[k] = (name, spoil_bytes(content, rng)[0])
    elif what == "lose":
        del members[k]
    elif what == "double":
        members.append((name, content))
    elif what == "rename":
        members[k] = (str(rng.choice(["../../x", "/x", "x" * 5000, ""])), content)
    elif what == "empty":
        members[k] = (name, b"")
    else:
        members[k] = (name, pickle.dumps(Payload()))
    out = io.BytesIO()
    with zipfile.ZipFile(
        out, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.3 else zipfile.ZIP_STORED
    ) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue(), f"member {name[:40]}: {what}"


# ---- numpy's files


def spoil_array(array: np.ndarray, rng: Rng) -> np.ndarray:
    what = rng.integers(14)
    floating = array.dtype.kind == "f"
    if what == 0:
        return array[..., None]
    if what == 1:
        return array.reshape(-1)
    if what == 2:
        return array[:0] if array.ndim else np.zeros(0)
    if what == 3 and floating:
        bad = array.copy()
        bad.reshape(-1)[rng.integers(max(1, bad.size)) :: int(rng.integers(1, 9))] = rng.choice(
            [np.nan, np.inf, -np.inf]
        )
        return bad
    if what == 4:
        return array.astype(rng.choice(["S4", "U4", "c16", "?", "f2", "i8", "u1", "M8[s]", "f8"]))
    if what == 5:
        return np.array([Payload()], object)
    if what == 6:
        return np.zeros(array.shape, array.dtype)
    if what == 7 and floating:
        return (array.astype(np.float64) * rng.choice([1e300, 1e-300, 1e20, -1e-20, -1])).astype(np.float64)
    if what == 8:
        return np.zeros(array.shape, [("a", "f4"), ("b", "S3")])
    if what == 9:
        return np.asarray(array).T
    if what == 10:
        return array[: len(array) // 2] if array.ndim else array
    if what == 11:
        return np.array(rng.choice([0.0, -1.0, np.nan, 1e300, 5.0]))
    if what == 12:
        return np.concatenate([array] * 3) if array.ndim else array
    return np.repeat(array[..., :1], 7, -1) if array.ndim else array


def spoil_npy(data: bytes, rng: Rng) -> tuple[bytes, str]:
    what = rng.integers(4)
    if what == 0:
        out = io.BytesIO()
        np.save(out, spoil_array(np.load(io.BytesIO(data)), rng), allow_pickle=True)
        return out.getvalue(), "another array"
    length = struct.unpack("<H", data[8:10])[0]
    body = data[10 + length :]
    if what == 1:
        return data[: 10 + length] + body[: rng.integers(len(body) + 1)], "body truncated"
    shapes = [(-1,), (-1, 3), (0,), (), (10**12,), (2**62, 2**62), (2**31, 3), (10**9, 17), (1.5, 3), (True,),
              ("3",), [3], 3, None, (3,) * 40]  # fmt: skip
    descrs = [
        "|V0",
        "|O",
        "<f8",
        "<f4",
        "|S0",
        "<U99999999",
        "|V4000000000",
        "<M8[ns]",
        "<c16",
        ">i2",
        "x",
        "",
        None,
        3,
        [("a", "<f4"), ("b", "|O")],
        [("a", "<f8", (1000, 1000))],
        ("<f4", (2**20,)),
        [],
        {"names": ["a"]},
    ]
    shape = shapes[rng.integers(len(shapes))]
    descr = descrs[rng.integers(len(descrs))] if rng.random() < 0.6 else "<f4"
    if what == 3 and rng.random() < 0.3:
        text = [
            "__import__('os').system('touch CANARY')",
            "(" * 5000,
            "{" * 90,
            "[" * 200 + "]" * 200,
            "{'descr': '<f4'}",
            "\xff\xfe",
            "1" * 9000,
        ]
        chosen = text[rng.integers(len(text))].encode("latin-1")
        return data[:8] + struct.pack("<H", len(chosen)) + chosen + body, f"header {chosen[:30]!r}"
    return npy_header(shape, descr) + body, f"header shape {shape}, descr {str(descr)[:30]}"


def spoil_npz(data: bytes, rng: Rng) -> tuple[bytes, str]:
    what = rng.integers(8)
    if what <= 1:
        return spoil_zip(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {e.filename: archive.read(e) for e in archive.infolist()}
    names = list(members)
    name = names[rng.integers(len(names))]
    if what == 2:  # a needed member, or one that nobody asked for
        chosen = name if rng.random() < 0.6 else "unneeded.npy"
        streams = []
        for n, content in members.items():
            if n != chosen:
                packer = zlib.compressobj(6, zlib.DEFLATED, -15)
                streams.append(
                    (n, packer.compress(content) + packer.flush(), zlib.crc32(content), len(content))
                )
        return raw_zip([*streams, (chosen, *bomb_member())]), f"member {chosen} is a bomb of 3 GiB"
    members[name], how = spoil_npy(members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, content in members.items():
            archive.writestr(zipfile.ZipInfo(n), content)
    return out.getvalue(), f"{name}: {how}"


# ---- text and bytes


def spoil_text(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Numbers, words and lines of a text, which may be the head of a binary file."""
    what = rng.integers(9)
    lines = data.split(b"\n")
    k = int(rng.integers(len(lines)))
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", data[:100_000]))
    if what <= 4 and numbers:
        said = []
        # those of the header as often as the rest
        few = numbers[: 1 + len(numbers) // 20] if rng.random() < 0.5 else numbers
        for m in sorted({int(n) for n in rng.integers(len(few), size=rng.integers(1, 4))}, reverse=True):
            new = [
                b"-1",
                b"0",
                b"nan",
                b"inf",
                b"1e308",
                b"1e-320",
                b"99999999999999999999",
                b"2147483647",
                b"4294967296",
                b"1000000",
                b"x",
                b"",
                b"9" * 5000,
                b"1e999",
                b"0.5",
                b"-7",
                b"1/2/3",
                b"\xff\xfe",
            ][rng.integers(18)]
            data = data[: few[m].start()] + new + data[few[m].end() :]
            said.append(f"number at {few[m].start()} = {new[:20]!r}")
        return data, "; ".join(said)
    if what == 5:
        return b"\n".join(lines[:k] + lines[k + 1 :]), f"line {k} lost"
    if what == 6:
        return b"\n".join(
            lines[:k] + [lines[k]] * int(rng.choice([2, 1000])) + lines[k:]
        ), f"line {k} repeated"
    if what == 7:
        return b"\n".join([*lines[:k], lines[k] + b" 7" * 20_000, *lines[k + 1 :]]), f"line {k} very long"
    j = int(rng.integers(len(lines)))
    lines[k], lines[j] = lines[j], lines[k]
    return b"\n".join(lines), f"lines {j} and {k} swapped"


def spoil_bytes(data: bytes, rng: Rng) -> tuple[bytes, str]:
    spoilt = bytearray(data)
    what = rng.integers(8)
    # the first bytes say what the others are: half of the changes go there
    span = len(spoilt) if rng.random() < 0.5 else min(len(spoilt), 256)
    at = int(rng.integers(span)) if span else 0
    if what <= 2 and spoilt:
        count = int(rng.integers(1, 9))
        for i in rng.integers(span, size=count):
            spoilt[i] ^= 1 << int(rng.integers(8))
        return bytes(spoilt), f"{count} bits"
    if what == 3:
        return bytes(spoilt[:at]), f"cut at {at}"
    if what == 4:
        block = [rng.bytes(64), bytes(64), b"\xff" * 64, bytes(spoilt[:64]), b"A" * 10_000][rng.integers(5)]
        return bytes(spoilt[:at] + block + spoilt[at:]), f"{len(block)} bytes inserted at {at}"
    if what == 5:
        return bytes(spoilt[:at] + spoilt[at + int(rng.integers(1, 64)) :]), f"bytes lost at {at}"
    if what == 6:
        size = int(rng.choice([1, 2, 4, 8]))
        new = [b"\xff" * size, bytes(size), b"\x7f" + b"\xff" * (size - 1), b"\xff" * (size - 1) + b"\x7f"][
            rng.integers(4)
        ]
        spoilt[at : at + size] = new
        return bytes(spoilt), f"{new!r} at {at}"
    return bytes(spoilt + spoilt), "twice"


# ---- images and meshes whose headers promise too much


@functools.cache
def png_bomb(width: int, height: int) -> bytes:
    """A real PNG of 1 bit a pixel, all black."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer = zlib.compressobj(9)
    row, packed = bytes(1 + -(-width // 8)), b""
    for _ in range(height):
        packed += packer.compress(row)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", packed + packer.flush())
        + chunk(b"IEND", b"")
    )


def spoil_image(data: bytes, rng: Rng) -> tuple[bytes, str]:
    what = rng.integers(6)
    if what == 0:
        width, height = [(30_000, 30_000), (65_000, 16), (11_500, 11_500)][rng.integers(3)]
        return png_bomb(width, height), f"a PNG of {width} x {height}"
    if what == 1:
        eps = (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 10\n%%EndComments\n(touch CANARY) (w) "
            b"file\nshowpage\n"
        )
        return eps, "an EPS"
    if what == 2 and data[:4] == b"\x89PNG":
        size = struct.pack(">II", *(int(rng.choice([0, 1, 20, 2**16, 2**20, 2**31 - 1])) for _ in range(2)))
        head = b"IHDR" + size + data[24:29]
        return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:], f"IHDR {size!r}"
    return spoil_bytes(data, rng)


def spoil_svg(data: bytes, rng: Rng) -> tuple[bytes, str]:
    what = rng.integers(10)
    head = (
        b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9" '
        b'height="9">'
    )
    if what == 0:
        uses = b"".join(
            b'<g id="g%d"><use xlink:href="#g%d"/><use xlink:href="#g%d"/></g>' % (k + 1, k, k)
            for k in range(30)
        )
        return head + b'<g id="g0"><path d="M0 0L1 0L1 1Z"/></g>' + uses + b"</svg>", "use doubled 30 times"
    if what == 1:
        entities = b"".join(b'<!ENTITY e%d "%s">' % (k + 1, b"&e%d;" % k * 10) for k in range(12))
        return (
            b'<!DOCTYPE svg [<!ENTITY e0 "M0 0L1 1">' + entities + b"]>" + head + b'<path d="&e12;"/></svg>',
            "entities",
        )
    if what == 2:
        return (
            b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + head + b'<path d="&x;"/></svg>',
            "a file as entity",
        )
    if what == 3:
        path = b"M0 0" + b"".join(b"L%d %d" % (k % 97, k % 89) for k in range(200_000)) + b"Z"
        return head + b'<path d="' + path + b'"/></svg>', "200,000 segments"
    if what == 4:
        return head + b"<g>" * 20_000 + b'<path d="M0 0L1 0L1 1Z"/>', "groups nested 20,000 deep"
    return spoil_text(data, rng) if rng.random() < 0.7 else spoil_bytes(data, rng)


def spoil_binvox(data: bytes, rng: Rng) -> tuple[bytes, str]:
    what = rng.integers(8)
    if what == 0:
        n = int(rng.choice([300, 700]))
        value, total = rng.integers(2), n**3
        body = bytes((int(value), 255)) * (total // 255) + bytes((int(value), total % 255))
        return (
            f"#binvox 1\ndim {n} {n} {n}\ntranslate 0 0 0\nscale 1\ndata\n".encode() + body,
            f"{n}^3 voxels of {value}",
        )
    if what == 1:
        n = 700  # sheets: a surface of millions of faces
        body = bytes((1, 100, 0, 100)) * (n**3 // 200)
        return (
            f"#binvox 1\ndim {n} {n} {n}\ntranslate 0 0 0\nscale 1\ndata\n".encode() + body,
            f"{n}^3 voxels in stripes",
        )
    return spoil_text(data, rng) if rng.random() < 0.6 else spoil_bytes(data, rng)


BY_SUFFIX: dict[str, Callable[[bytes, Rng], tuple[bytes, str]]] = {
    **dict.fromkeys((".json", ".gltf"), spoil_json),
    **dict.fromkeys((".yaml",), spoil_yaml),
    **dict.fromkeys((".ckpt", ".pth"), spoil_torch),
    **dict.fromkeys((".npz",), spoil_npz),
    **dict.fromkeys((".npy",), spoil_npy),
    **dict.fromkeys((".png", ".jpg", ".tif", ".bmp", ".webp"), spoil_image),
    **dict.fromkeys((".obj", ".ply", ".off", ".stl", ".mtl", ".xyz", ".csv", ".txt", ".lst"), spoil_text),
    ".svg": spoil_svg,
    ".binvox": spoil_binvox,
}


def mutate(path: Path, rng: Rng) -> str:
    """Spoil the file in place; what was done."""
    what = rng.random()
    if what < 0.02:  # not even a file
        path.unlink()
        kind = rng.choice(["fifo", "device", "folder", "dangling", "nothing", "empty"])
        if kind == "fifo":
            os.mkfifo(path)
        elif kind in ("device", "dangling"):
            path.symlink_to("/dev/zero" if kind == "device" else "/nowhere/at/all")
        elif kind == "folder":
            path.mkdir()
        elif kind == "empty":
            path.write_bytes(b"")
        return f"a {kind} in its place"
    own = BY_SUFFIX.get(path.suffix.lower())
    data, how = own(path.read_bytes(), rng) if own and what < 0.75 else spoil_bytes(path.read_bytes(), rng)
    path.write_bytes(data)
    return how
