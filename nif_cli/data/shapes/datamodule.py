"""The data module of shapes: sources give ShapeSamples, a pool keeps them on the device or on disk, batches
are drawn there."""

from __future__ import annotations

import fnmatch
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import torch

from nif_cli import NifError
from nif_cli.data.datamodule import Batches, ConditioningSpec, Data, Needs, in_turn
from nif_cli.data.memory import memory_limit
from nif_cli.data.shapes.conditioning import load_look
from nif_cli.data.shapes.formats.onet import OnetTree
from nif_cli.data.shapes.pool import ShapeBatch, ShapePool
from nif_cli.data.shapes.samples import Images, Known, ShapeSamples, VoxelGrid, unsigned
from nif_cli.data.shapes.sharded_pool import ShardedPool
from nif_cli.data.shapes.spool import Spool
from nif_cli.files import DiskError
from nif_cli.geometry.transform import SPACES
from nif_cli.metrics.protocols import Truth
from nif_cli.progress import Bar

Source = tuple[str, Callable[[], ShapeSamples]]


class ShapeData(Data):
    """Batches of shapes for training: `batch_points` points of at most `batch_shapes` shapes.

    `instances` takes some of them: a count, ids or globs. Samples beyond `memory` ('400MiB'; by default half
    of what is free) stay on disk and are drawn part by part. `observations` names another tree (of occupancy
    networks) to take point clouds and images from; they are aligned by both trees' transforms.

    What a batch holds is a function of (seed, number of the batch): a resumed run draws what the
    uninterrupted one would.
    """

    holds = "distances"  # what a source has, in words
    instead = "run nif prepare on the meshes to make them"  # what to do where a model needs more

    def __init__(
        self,
        batch_points: int = 8192,
        batch_shapes: int = 16,
        seed: int = 0,
        memory: str | int | None = None,
        instances: int | str | Sequence[str] | None = None,
        observations: str | None = None,
    ):
        super().__init__()
        if batch_points < 2 or batch_shapes < 1:
            raise ValueError(f"batch_points={batch_points}, batch_shapes={batch_shapes}: too few")
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed={seed}: must be in 0 .. 2^31 - 1")
        if isinstance(instances, int) and instances < 1:
            raise ValueError(f"instances={instances}: at least 1")
        self.batch_points, self.batch_shapes, self.seed = batch_points, batch_shapes, seed
        self.memory = memory_limit(memory)
        self.instances, self.observations = instances, observations
        self.shapes: list[ShapeSamples] = []
        self.left_out: list[str] = []  # shapes that could not be read: named when it happens
        self.pool: ShapePool | ShardedPool | None = None
        self.spool: Spool | None = None

    @abstractmethod
    def sources(self) -> list[Source]:
        """(instance id, how its samples are got), each id once."""

    def truth(self, id: str) -> Truth:
        """What a reconstruction of this instance is compared with, in the user's units; nothing unless a
        source says so."""
        return Truth()

    def chosen(self) -> list[Source]:
        """The sources that `instances` leaves, with what `observations` and a model's conditioning add to
        their shapes."""
        seen = OnetTree(self.observations) if self.observations else None
        return [(id, partial(self._looked_at, read, seen)) for id, read in self._chosen(self.sources())]

    def _looked_at(self, read: Callable[[], ShapeSamples], seen: OnetTree | None) -> ShapeSamples:
        shape = read()
        if seen:
            shape = replace(shape, known=seen.known(shape.id, shape.transform))
        look = self.needs.conditioning
        if look and shape.known:
            half = SPACES[self.space][1]
            shape = replace(shape, known=load_look(shape.known, look, shape.transform, half))
        return shape

    def prepare(self) -> list[ShapeSamples]:
        """Every shape's samples, read or made in parallel; what exceeds `memory` goes to disk."""
        if self.shapes:
            return self.shapes
        sources = self.chosen()
        # libigl uses every core by itself; two shapes at a time hide the reading of files
        used = 0
        with ThreadPoolExecutor(2) as threads:
            # no further ahead: results take memory
            waiting = [threads.submit(source) for _, source in sources[:3]]
            bar = Bar(len(sources), "samples", "shape")
            try:
                for i in range(len(sources)):
                    coming = waiting.pop(0)
                    if i + 3 < len(sources):
                        waiting.append(threads.submit(sources[i + 3][1]))
                    try:
                        shape = coming.result()
                    except DiskError:
                        raise
                    except NifError as error:
                        if len(sources) == 1:
                            raise
                        self.left_out.append(sources[i][0])
                        bar.write(f"{sources[i][0]}: left out: {error}", file=sys.stdout)
                        bar.update()
                        continue
                    used += shape.nbytes
                    if (
                        self.spool is None and 2 * used > self.memory
                    ):  # the samples, and the pool that copies them
                        self.spool = Spool(self.seed)
                        self.shapes = [self.spool.keep(s) for s in self.shapes]
                    self.shapes.append(self.spool.keep(shape) if self.spool else shape)
                    bar.update()
            except BaseException:
                self.shapes = []
                threads.shutdown(cancel_futures=True)
                raise
            finally:
                bar.close()
        if sources and not self.shapes:
            raise NifError(f"none of the {len(sources)} shapes could be read; the reasons stand above")
        return self.shapes

    def _chosen(self, sources: list[Source]) -> list[Source]:
        ids = [id for id, _ in sources]
        twice = sorted({id for id in ids if ids.count(id) > 1}) if len(set(ids)) < len(ids) else []
        if twice:
            raise NifError(
                f"two instances are called '{twice[0]}'; rename a file (an instance is called by its "
                "file's stem)"
            )
        if self.instances is None:
            return sources
        if isinstance(self.instances, int):
            return sources[: self.instances]
        patterns = [self.instances] if isinstance(self.instances, str) else list(self.instances)
        for pattern in patterns:
            if not (pattern in ids or fnmatch.filter(ids, pattern)):
                raise NifError(
                    f"data.instances: no '{pattern}' in this data; it has "
                    f"{', '.join(ids[:4])}{', ...' * (len(ids) > 4)}"
                )
        return [s for s in sources if any(s[0] == p or fnmatch.fnmatch(s[0], p) for p in patterns)]

    def meet(self, needs: Needs) -> list[ShapeSamples]:
        self.expect(needs)
        self.prepare()
        for what in needs.every:
            self._require(needs.asker, what)
        if needs.conditioning:
            self._require_look(needs.conditioning)
        if needs.unsigned:
            self.shapes = [unsigned(shape, self.seed) for shape in self.shapes]
        return self.shapes

    def _require(self, model: str, what: str) -> None:
        """NifError unless every shape has `what`, which `model` learns from."""
        shapes = self.prepare()
        known = {s.id for s in shapes if getattr(s, what) is not None and len(getattr(s, what))}
        lacking = [
            s for s in shapes if s.id not in known and not (what == "inside" and s.distance is not None)
        ]
        if not lacking:
            return
        words = {
            "distance": "distances",
            "inside": "occupancies or distances",
            "normals": "surface points with normals",
            "surface": "surface points",
        }[what]
        where = (
            f"{len(lacking)} of {len(shapes)} shapes lack them ({lacking[0].id}, ...)"
            if len(lacking) < len(shapes)
            else ""
        )
        raise NifError(f"this data holds {self.holds}, {model} needs {words}; {where or self.instead}")

    def _require_look(self, look: ConditioningSpec) -> None:
        """NifError unless every shape can be shown as `look` asks for."""

        def shows(shape: ShapeSamples) -> bool:
            if look.kind == "points":
                return shape.surface is not None and len(shape.surface) > 0
            seen = shape.known or Known()
            return (
                isinstance(seen.images, Images)
                if look.kind == "image"
                else isinstance(seen.voxels, VoxelGrid)
            )

        shapes = self.prepare()
        lacking = [s for s in shapes if not shows(s)]
        if lacking:
            words = {"points": "points on the surface", "image": "images", "voxels": "a voxel grid"}[
                look.kind
            ]
            raise NifError(
                f"the encoder needs {words} of every shape; {len(lacking)} of {len(shapes)} have none "
                f"({lacking[0].id}, ...); "
                "data.observations=<tree> takes them from a tree of occupancy networks"
            )

    def test_sources(self) -> list[Source]:
        """Those of the split 'test' beside this one; none where there is no such split, or this is it."""
        return []

    def test_shapes(self, count: int) -> list[ShapeSamples]:
        """At most `count` of `test_sources`; those that cannot be read are left out, and said."""
        seen = OnetTree(self.observations) if self.observations else None
        found = []
        for id, read in self.test_sources()[:count]:
            try:
                found.append(self._looked_at(read, seen))
            except DiskError:
                raise
            except NifError as error:
                print(f"{id}: left out: {error}")
        return found

    def summary(self) -> str:
        shapes = self.prepare()
        few = "1 shape" if len(shapes) == 1 else f"{len(shapes)} shapes"
        return f"{few}, {sum(len(s.points) for s in shapes):,} points"

    def make_pool(self, device: torch.device) -> ShapePool | ShardedPool:
        """The pool for the training device; made once."""
        if self.pool is None or self.pool.device != device:
            shapes = self.prepare()
            needs = self.needs
            settings = {"look": needs.conditioning, "occupancy": needs.occupancy, "balanced": needs.balanced}
            if self.spool is None:
                self.pool = ShapePool(shapes, device, self.seed, **settings)
            else:  # two parts at a time, and room for what reading takes
                shards = 1 + 4 * sum(s.nbytes for s in shapes) // self.memory
                self.pool = ShardedPool(shapes, device, self.seed, shards, **settings)
        return self.pool

    def train_batches(self, device: torch.device) -> ShapeBatches:
        return ShapeBatches(self, device)

    def held_out_batches(self, device: torch.device) -> list[ShapeBatch]:
        pool = self.make_pool(device)
        rows = list(range(min(len(pool), 64)))
        return [pool.held_out(rows[i : i + 16], 2048) for i in range(0, len(rows), 16)]


class ShapeBatches(Batches[ShapeData]):
    def __init__(self, data: ShapeData, device: torch.device):
        self.data, self.pool = data, data.make_pool(device)
        self.generator = torch.Generator(device)
        self.order = torch.Generator()
        sharded = isinstance(self.pool, ShardedPool)  # its parts change between any two batches
        look = data.needs.conditioning
        each = data.batch_points + (data.batch_shapes * look.size if look and look.kind == "points" else 0)
        self.together = 1 if sharded else max(1, min(32, 2**17 // each))
        self.drawn: tuple[int, list[ShapeBatch]] = (-1, [])

    def batch(self, k: int) -> ShapeBatch:
        """Batch number k: shapes go round in an order that is shuffled anew each round, none twice in a
        batch."""
        block, place = divmod(k, self.together)
        if block != self.drawn[0]:
            self.drawn = (block, self._draw(block))
        return self.drawn[1][place]

    def _draw(self, block: int) -> list[ShapeBatch]:
        """`together` batches at once: for a small network a draw would cost as much as its step."""
        first = block * self.together
        total, size = len(self.pool), min(self.data.batch_shapes, len(self.pool))
        rows = []
        for k in range(first, first + self.together):
            if total == 1:
                rows.append(torch.zeros(1, dtype=torch.long))
                continue
            rows.append(in_turn(total, size, k, self.data.seed, self.order))
        self.generator.manual_seed(self.data.seed * 7_368_787 + block + 1)
        surface = int(self.data.needs.surface_share * self.data.batch_points) // size
        pool = self.pool.at(first, self.data.batch_points)
        drawn = pool.draw(
            torch.cat(rows).to(pool.device), max(2, self.data.batch_points // size), surface, self.generator
        )
        return drawn.split(size)
