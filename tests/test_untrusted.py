"""Strangers' files: measured before they are unpacked, checked value by value, refused in one line."""

import os
import struct
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from narrowing import sure
from PIL import Image

from nif_cli import NifError, runs
from nif_cli.data.shapes.formats.voxels import read_grids, write_binvox
from nif_cli.data.shapes.user_files import read_inputs
from nif_cli.files import available_memory, safe_name
from nif_cli.geometry.voxels import voxel_distance, voxel_mesh
from nif_cli.torch_files import read_torch
from nif_cli.untrusted import npz_headers, opened_image, read_npy, read_npz


def npy(shape: object, descr: object = "<f4", body: bytes = b"") -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body


@pytest.mark.parametrize(
    ("shape", "descr"),
    [
        ((-1,), "|V0"),
        ((-1,), "<f4"),
        ((3,), "|O"),
        ((10**12,), "<f4"),
        ((2**62, 2**62, 4), "<f8"),
        ((2,), "|S0"),
        ((3, 3), "<f4"),
        ((True,), "|u1"),
        ((1,), [("a", "<f4")]),
        ((1.5,), "<f4"),
        (None, "<f4"),
        ((1,), "nonsense"),
        ((1,) * 40, "|u1"),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_headers_are_checked_before_numpy_sees_them(tmp_path: Path, shape, descr, mapped: bool) -> None:
    """A type without size kills the process in numpy's memory map (SIGFPE)."""
    path = tmp_path / "a.npy"
    path.write_bytes(npy(shape, descr, bytes(8)))
    with pytest.raises(NifError, match=r"a\.npy"):
        read_npy(path, "numbers", mapped)
    with pytest.raises(NifError, match=r"a\.npy"):
        read_inputs(path, "a")[0][1]()


@pytest.mark.parametrize("mapped", [False, True])
def test_arrays_come_back(tmp_path: Path, rng, mapped: bool) -> None:
    for array in (
        rng.normal(size=(3, 4)),
        np.zeros((0, 3), np.float16),
        np.asfortranarray(rng.normal(size=(2, 5))),
        np.array(3),
    ):
        np.save(tmp_path / "a.npy", array)
        assert np.array_equal(read_npy(tmp_path / "a.npy", "numbers", mapped), array)


def bomb(path: Path, name: str, size: int) -> None:
    """An npz with an array `points` and a member of zeros that unpacks to `size` bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("points.npy", "w") as file:
            np.lib.format.write_array(file, np.random.default_rng(0).normal(size=(40, 3)))
        with archive.open(name, "w") as file:
            file.write(npy((size // 4,)))
            for _ in range(size // 2**24):
                file.write(bytes(2**24))


def test_what_is_not_needed_is_never_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    bomb(path, "other.npy", 2**28)
    tracemalloc.start()
    try:
        assert npz_headers(path, "points").keys() == {"points", "other"}
        assert read_npz(path, ("points",), "points")["points"].shape == (40, 3)
        assert sure(sure(read_inputs(path, "a")[0][1]().seen).scan).points.shape == (40, 3)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_what_is_needed_is_measured_first(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    bomb(path, "voxels.npy", 2**29 + 2**24)
    for read in (lambda: read_npz(path, ("voxels",), "voxels"), lambda: read_grids(path)):
        began = time.process_time()
        with pytest.raises(NifError, match="would unpack to"):
            read()
        assert time.process_time() - began < 2


def test_a_member_that_promises_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("points.npy", npy((10**9, 3)))
    with pytest.raises(NifError, match="truncated: its header promises 12,000,000,000 bytes"):
        read_npz(path, ("points",), "points")


def test_a_chunk_of_a_png_that_promises_more_than_the_file_has(tmp_path: Path) -> None:
    """Pillow asks the memory for what a chunk promises, before it reads."""
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"IDAT") - 4
    data[place : place + 4] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(data)
    with (
        pytest.raises(NifError, match=r"a\.png: .*truncated: its IDAT chunk promises 2,147,483,647 bytes"),
        opened_image(path),
    ):
        pass


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.xyz", "a.ply", "a.binvox", "a.png", "last.ckpt"])
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path, name: str) -> None:
    for target in ("pipe", "/dev/zero"):
        path = tmp_path / name
        os.mkfifo(path) if target == "pipe" else path.symlink_to(target)
        with pytest.raises(NifError, match="not a regular file"):
            runs.read_checkpoint(path) if name.endswith("ckpt") else read_inputs(path, "a")[0][1]()
        path.unlink()


def test_a_large_grid_of_few_bytes(tmp_path: Path) -> None:
    path, n = tmp_path / "a.binvox", 700
    path.write_bytes(f"#binvox 1\ndim {n} {n} {n}\ndata\n".encode() + bytes((1, 250)) * (n**3 // 250))
    with pytest.raises(NifError, match="700 x 700 x 700 voxels; at most"):
        read_grids(path).read(0)


@pytest.mark.parametrize(
    "change",
    [
        "dim 0 3 3",
        "dim -3 -3 3",
        "dim 3 3",
        "dim x 3 3",
        "scale nan",
        "scale 0",
        "scale -1",
        "translate 1 2",
        "translate inf 0 0",
    ],
)
def test_damaged_heads_of_binvox(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.binvox"
    write_binvox(path, np.ones((3, 3, 3), bool))
    key = change.split()[0].encode()
    path.write_bytes(
        b"\n".join(
            change.encode() if line.startswith(key) else line for line in path.read_bytes().split(b"\n")
        )
    )
    with pytest.raises(NifError, match=r"a\.binvox"):
        read_grids(path).read(0)


def test_a_mesh_of_voxels_is_the_zero_level_of_their_distance(rng) -> None:
    """The memory of distances is not needed: where the sign changes they are +-0.5."""
    import mcubes

    for fill in (False, True):
        grid = rng.random((9, 8, 7)) > 0.5
        vertices, faces = mcubes.marching_cubes(voxel_distance(grid, fill), 0.0)
        mesh = voxel_mesh(grid, fill)
        assert np.array_equal(mesh.vertices, vertices - 2)
        assert np.array_equal(mesh.faces, faces)


def spoilt(run: Path, change) -> Path:
    """The run with its last checkpoint changed by `change(checkpoint)`."""
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    return run


def put(*keys, value):
    def change(tree) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "scale", [0.0, -1.0, float("nan"), float("inf"), 1e300, "1", None, True, [1.0], 10**400]
)
def test_an_instance_that_lies_nowhere(run: Path, nif, scale) -> None:
    spoilt(run, put("nif", "instances", 0, "scale", value=scale))
    assert "scale" in nif("extract", f"run={run}", "resolution=16").error


@pytest.mark.parametrize(
    "offset", [[0, 0], [0, 0, float("nan")], "abc", None, [[0], [1], [2]], [0, 0, 1e300]]
)
def test_an_offset_that_is_none(run: Path, offset) -> None:
    with pytest.raises(NifError, match=r"last\.ckpt: instance .*offset"):
        runs.load_model(spoilt(run, put("nif", "instances", 0, "offset", value=offset)))


@pytest.mark.parametrize("id", ["x" * 10_000, 3, None, ["a"], "a\0b"])
def test_an_id_that_is_none(run: Path, id) -> None:
    with pytest.raises(NifError, match=r"last\.ckpt: instance 0: id"):
        runs.load_model(spoilt(run, put("nif", "instances", 0, "id", value=id)))


def test_a_few_bytes_that_stand_for_gigabytes(run: Path) -> None:
    """Strides of 0: 38 KB of file became 3.6 GB of tensors."""
    name = next(iter(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]))
    spoilt(run, put("state_dict", name, value=torch.zeros(1).expand(2**30)))
    with pytest.raises(NifError, match="would take more than"):
        runs.load_model(run)


@pytest.mark.parametrize("key", ["width", "layers"])
@pytest.mark.parametrize(
    "value", [10**400, 2**40, 10**7, -1, float("nan"), float("inf"), "3", None, [8], {"a": 1}]
)
def test_networks_that_nobody_has(run: Path, key: str, value) -> None:
    began = time.process_time()
    with pytest.raises(NifError, match=r"last\.ckpt"):
        runs.load_model(spoilt(run, put("nif", "config", "field", key, value=value)))
    assert time.process_time() - began < 10


def test_weights_that_are_no_numbers(run: Path) -> None:
    name = "network.hidden.0.bias"
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    name = name if name in weights else next(k for k in weights if k.startswith("network"))
    with pytest.raises(NifError, match="NaN"):
        runs.load_model(
            spoilt(run, put("state_dict", name, value=torch.full_like(weights[name], float("nan"))))
        )
    runs.load_model(spoilt(run, put("state_dict", name, value=weights[name].double())))  # mended
    with pytest.raises(NifError, match=r"must be torch\.float32"):
        runs.load_model(spoilt(run, put("state_dict", name, value=weights[name].to(torch.complex64))))


@pytest.mark.parametrize("member", ["data.pkl", "data/0", "version"])
def test_inner_records_cut_short(run: Path, member: str) -> None:
    path = run / "checkpoints" / "last.ckpt"
    with zipfile.ZipFile(path) as archive:
        members = {e.filename: archive.read(e) for e in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content[: len(content) // 2] if name.endswith(member) else content)
    try:
        runs.load_model(run)  # a record that nothing needs
    except NifError as error:
        assert "last.ckpt" in str(error)  # noqa: PT017
        assert len(str(error).splitlines()) == 1  # noqa: PT017


def test_deep_values_and_values_that_are_many(tmp_path: Path) -> None:
    deep: list = []
    for _ in range(200):
        deep = [deep]
    many: list = [0]
    for _ in range(40):
        many = [many, many]
    for value in (deep, many):
        torch.save(value, tmp_path / "a.pth")
        with pytest.raises(NifError, match="nested too deeply"):
            read_torch(tmp_path / "a.pth", "snapshot")


@pytest.mark.parametrize(
    "id", ["x" * 999, "ä" * 500, "a/" * 499 + "b", "x" * 250 + "/" + "y" * 250, "\ud800"]
)
def test_names_that_files_can_have(tmp_path: Path, id: str) -> None:
    name = safe_name(id)
    assert all(len(part.encode()) <= 200 for part in name.split("/"))
    assert name != safe_name(id + "z")
    path = tmp_path / f"{name}.ply"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_names_that_files_cannot_have() -> None:
    with pytest.raises(NifError, match="10,000 characters"):
        safe_name("x" * 10_000)
    assert zlib.crc32(b"") == 0  # the suffix that tells two long names apart is a checksum of the whole
    assert safe_name("x" * 300 + "a") != safe_name("x" * 300 + "b")


GROUPS = {  # what /proc/self/cgroup says, where the limit lies, and its files: limit, used, cached
    "v2": ("0::/box/job", "sys/fs/cgroup/box", ("memory.max", "memory.current", "inactive_file")),
    "v2 in a container": ("0::/", "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")),
    "v1": (
        "9:cpu:/\n4:memory:/docker/abc\n0::/",
        "sys/fs/cgroup/memory",
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_a_container_has_the_memory_of_its_own(tmp_path, kind):
    """Whoever takes more than the group's limit is killed, whatever the machine could still give."""
    said, where, (most, now, cached) = GROUPS[kind]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 1000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text(said + "\n")
    assert available_memory(tmp_path) == 1000 * 1024
    folder = tmp_path / where
    folder.mkdir(parents=True)
    for limit, left in (
        ("600000", 350000),
        ("max", 1024000),
        ("9223372036854771712", 1024000),
        ("100", 0),
    ):
        (folder / most).write_text(limit + "\n")
        (folder / now).write_text("300000\n")
        (folder / "memory.stat").write_text(f"anon 7\n{cached} 50000\n")
        assert available_memory(tmp_path) == left
