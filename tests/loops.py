"""Every compiled loop against its plain version: `python loops.py THREADS...`, in a process of its own,
because the code generator (NUMBA_CPU_NAME) and the cache are chosen before numba is imported.
tests/test_compiled.py runs it."""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from nif_cli.fields import grid_kernels, grid_lookup, grid_slopes, slope_kernels
from nif_cli.fields.grid_levels import Levels
from nif_cli.fields.lazy_gradient import LazyGradient
from nif_cli.rendering import march_kernels as rendering
from nif_cli.rendering import volume
from nif_cli.rendering.occupancy_grid import GridMarch, OccupancyGrid
from nif_cli.rendering.ray_samples import Samples
from nif_cli.rendering.rays import Rays

BETAS, EPS = (0.9, 0.99), 1e-15


def unaligned(x: np.ndarray) -> np.ndarray:
    """The same numbers, four bytes beyond where an array of their own would begin."""
    memory = np.empty(x.nbytes + 68, np.uint8)
    first = (-memory.ctypes.data) % 64 + 4
    view = memory[first : first + x.nbytes].view(x.dtype).reshape(x.shape)
    view[:] = x
    return view


def close(found, expected, what: str, tolerance: float = 1e-5) -> None:
    found, expected = (torch.as_tensor(np.asarray(x)) for x in (found, expected))
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance, msg=lambda m: f"{what}: {m}")


def encoding(rng: np.random.Generator) -> None:
    """Forward and backward of levels of every kind; no points, one, and more than a chunk."""
    cases = (
        (Levels.geometric(3, 4, 4, 40.0, 2**9), 2, torch.float32, (0, 1, grid_kernels.CHUNK + 7)),
        (Levels.spline(2, 7), 3, torch.float64, (0, 1, 130)),
    )
    for levels, features, dtype, counts in cases:
        table = torch.from_numpy(rng.normal(size=(sum(levels.rows), features))).to(dtype).requires_grad_()
        for count in counts:
            x = torch.from_numpy(rng.random((count, levels.dim))).to(dtype)
            # the corners too
            x = torch.cat((x, torch.zeros_like(x[:1]), torch.ones_like(x[:1]))) if count else x
            grad = torch.from_numpy(rng.normal(size=(len(x), len(levels.rows) * features))).to(dtype)
            expected = grid_lookup.encode_reference(x, table, levels)
            (slope,) = torch.autograd.grad(expected, table, grad)
            given, rows = unaligned(x.numpy()), unaligned(table.detach().numpy())
            close(grid_kernels.forward(given, rows, levels), expected.detach(), f"forward of {count}")
            close(
                grid_kernels.backward(given, grad.numpy(), levels, tuple(table.shape)),
                slope,
                f"backward of {count}",
                1e-4,
            )
            if dtype == torch.float32:
                lazy = LazyGradient(table.detach().requires_grad_())
                grid_kernels.backward_lazy(
                    given, grad.numpy(), levels, lazy.rows.numpy(), lazy.touched.numpy()
                )
                close(lazy.gradient, slope, f"lazy backward of {count}", 1e-4)
                marked = np.unpackbits(lazy.touched.numpy(), bitorder="little")[: len(table)]
                assert not (slope.abs().sum(1).numpy() > 0)[marked == 0].any(), (
                    f"a row of {count} points that is not marked"
                )
                grid_kernels.clear(lazy.rows.numpy(), lazy.touched.numpy())
                assert not lazy.gradient.any(), "not clear"
                assert not lazy.touched.any(), "still marked"


def slopes(rng: np.random.Generator) -> None:
    """Features with their derivatives, forward and backward, dense levels and hashed ones."""
    levels, features = Levels.geometric(3, 4, 4, 40.0, 2**9), 2
    table = torch.from_numpy(rng.normal(size=(sum(levels.rows), features))).float().requires_grad_()
    for count in (0, 1, grid_kernels.CHUNK + 7):
        x = torch.from_numpy(rng.random((count, 3))).float()
        grad = torch.from_numpy(rng.normal(size=(count, 4, 4 * features))).float()
        expected = grid_slopes.encode_slopes_reference(x, table, levels)
        (wanted,) = torch.autograd.grad(expected, table, grad)
        given, rows = unaligned(x.numpy()), unaligned(table.detach().numpy())
        close(
            slope_kernels.forward_slopes(given, rows, levels), expected.detach(), f"slopes of {count}", 1e-4
        )
        made = slope_kernels.backward_slopes(given, grad.numpy(), levels, tuple(table.shape))
        close(made, wanted, f"backward of the slopes of {count}", 2e-4)
        lazy = LazyGradient(table.detach().requires_grad_())
        slope_kernels.backward_lazy_slopes(
            given, grad.numpy(), levels, lazy.rows.numpy(), lazy.touched.numpy()
        )
        close(lazy.gradient, wanted, f"lazy backward of the slopes of {count}", 2e-4)
        marked = np.unpackbits(lazy.touched.numpy(), bitorder="little")[: len(table)]
        assert not (wanted.abs().sum(1).numpy() > 0)[marked == 0].any(), f"a row of {count} is not marked"


def adam(rng: np.random.Generator) -> None:
    """Rows touched at random, whole eights, each row of an eight alone, none."""
    features = 2
    for count in (0, 1, 7, 8, 9, 1001, 8 * grid_kernels.CHUNK + 13):
        for kind in ("some", "all", "none", "alone"):
            chosen = {
                "some": rng.random(count) < 0.3, "all": np.ones(count, bool), "none": np.zeros(count, bool),
                "alone": np.arange(count) % 8 == np.arange(count) // 8 % 8,
            }[kind]  # fmt: skip
            table = rng.normal(size=(count, features)).astype(np.float32)
            rows = rng.random((count, 4 * features)).astype(np.float32)
            rows[~chosen, :features] = 0
            gradient, mean, square, rest = (q.astype(np.float64) for q in np.split(rows, 4, 1))
            touched = np.packbits(chosen, bitorder="little")
            wanted, at = table.astype(np.float64), chosen
            g = gradient[at] + 0.1 * wanted[at]
            mean[at], square[at] = 0.9 * mean[at] + 0.1 * g, 0.99 * square[at] + 0.01 * g * g
            wanted[at] -= 1e-2 * (mean[at] / (1 - 0.9**3)) / (np.sqrt(square[at] / (1 - 0.99**3)) + EPS)
            gradient[at] = 0
            table, rows = unaligned(table), unaligned(rows)
            grid_kernels.adam_rows(table, rows, touched, 1e-2, BETAS, EPS, 3, 0.1)
            close(table, wanted.astype(np.float32), f"Adam of {count} rows, {kind}")
            close(
                rows,
                np.concatenate((gradient, mean, square, rest), 1).astype(np.float32),
                f"moments of {count}, {kind}",
            )
            assert not touched.any(), f"{count} rows, {kind}: still marked"


def compositing(rng: np.random.Generator) -> None:
    """Rays without samples, none at all, dense and empty ones; forward and gradients."""
    for rays, most in ((0, 0), (1, 0), (1, 1), (37, 23)):
        ray = (
            np.repeat(np.arange(rays), rng.integers(0, most + 1, rays))
            if most != 1
            else np.zeros(1, np.int64)
        )
        n = len(ray)
        t = torch.from_numpy(np.sort(rng.random(n)).astype(np.float32))
        samples = Samples(torch.from_numpy(ray), t, torch.from_numpy(rng.random(n).astype(np.float32) * 0.1))
        numbers = rng.random(n) * np.where(rng.random(n) < 0.1, 1e4, 20)
        density = torch.from_numpy(numbers.astype(np.float32)).requires_grad_()
        rgb = torch.from_numpy(
            rng.random((3, n)).astype(np.float32)
        ).T.requires_grad_()  # its rows are not whole
        of = [
            torch.from_numpy(rng.normal(size=s).astype(np.float32))
            for s in ((rays, 3), (rays,), (rays,), (n,))
        ]
        share = torch.from_numpy((rng.random(n) * 1.5).clip(max=1).astype(np.float32)).requires_grad_()
        for given, kind in ((density, "density"), (share, "alpha")):
            results = []
            for version in (volume.composite, volume.composite_reference):
                light, weights = version(
                    given if kind == "density" else volume.Alpha(given), rgb, samples, rays
                )
                out = (light.color, light.depth, light.transmittance, weights)
                total = torch.stack([(a * b).sum() for a, b in zip(out, of, strict=True)]).sum()
                results.append([x.detach() for x in out] + list(torch.autograd.grad(total, (given, rgb))))
            for k, (found, expected) in enumerate(zip(*results, strict=True)):
                close(found, expected, f"compositing {kind} of {rays} rays, result {k}", 1e-4)


def all_samples(grid: OccupancyGrid, rays: Rays, cone: float, compiled: bool = True) -> np.ndarray:
    near, far = torch.full((len(rays),), 0.1), torch.full((len(rays),), 9.0)
    march = GridMarch(grid, rays, near, far, 0.02, cone, compiled=compiled)
    alive, parts = torch.arange(len(rays)), []
    while len(alive):
        samples, going = march.next(alive, 7)
        parts.append(
            torch.stack((alive[samples.ray].double(), samples.t.double(), samples.delta.double()), -1)
        )
        alive = alive[going]
    found = torch.cat(parts).numpy() if parts else np.empty((0, 3))
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def marching(rng: np.random.Generator) -> None:
    """No ray, one, many; rays that miss, run along an axis, or are no numbers."""
    for count, cascades, cone in ((0, 1, 0.0), (1, 1, 0.0), (61, 1, 0.0), (45, 3, 0.02)):
        grid = OccupancyGrid(32, cascades)
        blocks = (rng.random((cascades, 8, 8, 8)) > 0.7).repeat(4, 1).repeat(4, 2).repeat(4, 3)
        grid.occupied = torch.from_numpy((blocks & (rng.random(blocks.shape) > 0.5)).astype(np.uint8))
        at = rng.normal(size=(count, 3))
        at *= 2 / np.linalg.norm(at, axis=1, keepdims=True)
        to = rng.random((count, 3)) - 0.5 - at
        to /= np.linalg.norm(to, axis=1, keepdims=True)
        if count > 9:
            to[0], at[1], to[2], at[3], to[4] = -to[0], np.nan, np.nan, np.inf, 0
            at[5], to[5] = (-2, 0.01, 0.02), (1, 0, 0)
        rays = Rays(*(torch.from_numpy(a.astype(np.float32)) for a in (at, to)))
        found = all_samples(grid, rays, cone)
        sound = [n for n in range(count) if count <= 9 or not 1 <= n <= 4]
        expected = all_samples(grid, Rays(rays.origins[sound], rays.directions[sound]), cone, compiled=False)
        expected[:, 0] = np.array(sound, float)[expected[:, 0].astype(int)] if len(expected) else 0
        assert not np.isin(found[:, 0], (1, 2, 3, 4)).any() or count <= 9, "samples of rays that are none"
        ours, theirs = ({(int(r), round(float(t), 3)) for r, t, _ in x} for x in (found, expected))
        # a sample on the border of two cells may be in either
        assert len(ours ^ theirs) <= 0.02 * max(len(theirs), 1), (
            f"marching {count} rays: {len(ours ^ theirs)} of {len(theirs)}"
        )
        assert count < 9 or len(theirs) > 200


def no_numbers() -> None:
    """Points that are no numbers, or far outside, stay within the table."""
    levels = Levels.geometric(3, 2, 4, 16.0, 2**6)
    table = np.ones((sum(levels.rows), 2), np.float32)
    x = np.array([[np.nan] * 3, [np.inf] * 3, [-np.inf] * 3, [1e30] * 3, [-1e30] * 3], np.float32)
    out = grid_kernels.forward(x, table, levels)
    assert np.isnan(out[:3]).all(), "points that are no numbers have values"
    grid_kernels.backward(x, np.ones_like(out), levels, table.shape)


def threads_are_torchs(count: int) -> None:
    """Every wrapper leaves torch's number alone and takes as many."""
    import numba
    from numba.core import config

    assert torch.get_num_threads() == count, f"torch had {count} threads, now {torch.get_num_threads()}"
    expected = min(count, vars(config)["NUMBA_NUM_THREADS"])  # numba fills the module as it starts
    assert numba.get_num_threads() == expected, (
        f"{numba.get_num_threads()} threads of loops, {expected} of torch"
    )


def main(counts: list[int]) -> None:
    start = torch.get_num_threads()
    for count in counts:
        if count:
            torch.set_num_threads(count)
        count = count or start  # 0: as torch found it
        rng = np.random.default_rng(count)
        for check in (encoding, slopes, adam, compositing, marching):
            check(rng)
            threads_are_torchs(count)
        no_numbers()
    assert rendering.__file__
    print(json.dumps({"threads": counts}))


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or [1])
