"""All kinds of latents, by the names that recipes use and the codes that files hold.

An installed package adds one as an entry point of the group `nacre.kinds`, whose object is a class derived from
`nacre.quantise.base.Quantiser`; its code is 8 to 15, so that it is none of nacre's own.
"""

from __future__ import annotations

from nacre.core.errors import BundleError
from nacre.core.kinds import Registry
from nacre.quantise.base import Quantiser
from nacre.quantise.fsq import FiniteScalar
from nacre.quantise.gaussian import GaussianQuantiser
from nacre.quantise.rvq import ResidualVQ
from nacre.quantise.scalar import ScalarQuantiser

KINDS: Registry[type[Quantiser]] = Registry(
    "nacre.kinds", scalar=ScalarQuantiser, gaussian=GaussianQuantiser, rvq=ResidualVQ, fsq=FiniteScalar
)


def kind_of(code: int) -> type[Quantiser]:
    """The kind with this code. Raises BundleError where none has it."""
    kind = KINDS.find(lambda kind: kind.code == code)
    if kind is None:
        known = ", ".join(f"{KINDS[name].code} {name}" for name in KINDS)
        raise BundleError(f"kind of latents {code} is none of {known}; update nacre, or install what made it")
    return kind
