"""All kinds that can be trained, by the names that recipes use.

An installed package adds one as an entry point of the group `nacre.bottlenecks`, whose object is a class derived from
`nacre.train.bottlenecks.base.Bottleneck`; what it exports is a kind of the group `nacre.kinds`.
"""

from __future__ import annotations

from nacre.core.kinds import Registry
from nacre.train.bottlenecks.autoencoder import PlainQuantiser
from nacre.train.bottlenecks.base import Bottleneck
from nacre.train.bottlenecks.fsq import FiniteScalar
from nacre.train.bottlenecks.gaussian import GaussianQuantiser
from nacre.train.bottlenecks.rvq import ResidualVQ
from nacre.train.bottlenecks.scalar import ScalarQuantiser

BOTTLENECKS: Registry[type[Bottleneck]] = Registry(
    "nacre.bottlenecks",
    scalar=ScalarQuantiser,
    gaussian=GaussianQuantiser,
    rvq=ResidualVQ,
    fsq=FiniteScalar,
    autoencoder=PlainQuantiser,
)
