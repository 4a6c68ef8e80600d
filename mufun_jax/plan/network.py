"""How long a collective takes over the links of a torus and, between slices, over the data-centre network.

Formulas of "How to Scale Your Model" (jax-ml.github.io/scaling-book/sharding): a ring moves the whole array past each
chip once, in both directions at once where the axis wraps; a group that spans several axes of the torus uses the links
of all. An exchange between all is limited by the links across the middle of the longest axis. Each hop adds a
microsecond. Not modelled: two groups that share a link, and a tree in place of a ring for small arrays.
"""

from collections import Counter
from dataclasses import dataclass

from jax.sharding import Mesh

from mufun_jax.plan.collectives import Collective
from mufun_jax.plan.topology import Topology

_HOP_SECONDS = 1e-6


@dataclass(frozen=True)
class Place:
    """Where one device of the mesh is: its slice, and its chip's coordinates in the slice."""

    slice_index: int
    coords: tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """The links between the devices of a mesh, in the mesh's order."""

    topology: Topology
    places: tuple[Place, ...]

    @staticmethod
    def of(mesh: Mesh, topology: Topology) -> "Network":
        dims = len(topology.dims)
        places = (
            Place(device.slice_index if topology.slices > 1 else 0, tuple(device.coords[:dims]))
            for device in mesh.devices.flat
        )
        return Network(topology, tuple(places))

    def seconds(self, collective: Collective) -> float:
        """Seconds of one collective, from its start until all devices have its result."""
        members = [self.places[number] for number in collective.group]
        slices = Counter(place.slice_index for place in members)
        inside = [place for place in members if place.slice_index == members[0].slice_index]
        seconds = self._inside(collective, inside) if len(inside) > 1 else 0.0
        if len(slices) > 1:
            seconds += self._between(collective, len(slices), len(inside))
        return seconds

    def _inside(self, collective: Collective, members: list[Place]) -> float:
        """Within one slice."""
        link, n = self.topology.chip.link_bandwidth, len(members)
        spans = [len({place.coords[axis] for place in members}) for axis in range(len(self.topology.dims))]
        rings = [self.topology.wrap[axis] and span == self.topology.dims[axis] for axis, span in enumerate(spans)]
        if max(spans) == 1:  # both devices of one chip, beside each other on its memory
            return collective.nbytes / self.topology.chip.memory_bandwidth
        hops = sum(span // 2 if ring else span - 1 for span, ring in zip(spans, rings, strict=True))
        if collective.kind == "collective-permute":
            hops = self._hops(members[0], members[1])
            return collective.nbytes * hops / link + hops * _HOP_SECONDS
        if collective.kind == "all-to-all":
            longest = max(range(len(spans)), key=lambda axis: spans[axis] / (2 if rings[axis] else 1))
            across = link * (2 if rings[longest] else 1)
            return collective.nbytes * spans[longest] / 4 / across + hops * _HOP_SECONDS
        bandwidth = sum(link * (2 if ring else 1) for span, ring in zip(spans, rings, strict=True) if span > 1)
        passes = 2 if collective.kind == "all-reduce" else 1
        return passes * (collective.nbytes * (n - 1) / n / bandwidth + hops * _HOP_SECONDS)

    def _between(self, collective: Collective, slices: int, inside: int) -> float:
        """Between slices: each device exchanges its part of what its slice has gathered or reduced."""
        network = self.topology.chip.network_bandwidth
        if collective.kind == "collective-permute":
            return collective.nbytes / network
        part = collective.nbytes if collective.kind == "all-to-all" else collective.nbytes / inside
        passes = 2 if collective.kind == "all-reduce" else 1
        return passes * part * (slices - 1) / slices / network

    def _hops(self, one: Place, other: Place) -> int:
        total = 0
        for axis, (a, b) in enumerate(zip(one.coords, other.coords, strict=True)):
            apart = abs(a - b)
            size = self.topology.dims[axis]
            total += min(apart, size - apart) if self.topology.wrap[axis] else apart
        return max(1, total)
