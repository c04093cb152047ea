"""What names and numbers in files and recipes stand for: registries that installed packages may add to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from nacre.core.errors import NacreError

MAGIC = b"NACR"  # what a .nacre file begins with
MUSIC = 5  # kind of a file of music, whose symbols are no latents; the other kinds are in nacre.quantise.registry

Item = TypeVar("Item")


class Registry(Generic[Item]):
    """Items by name. Besides those that are added here, packages offer theirs as entry points of the group.

    An entry point's name is the item's; its object is what `add` would be given. It is loaded when it is first needed.
    """

    def __init__(self, group: str, **items: Item):
        self.group, self._items = group, dict(items)
        self._loaded_packages = False

    def add(self, name: str, item: Item) -> None:
        """Make an item known; raises NacreError where the name stands for another one."""
        if self._items.setdefault(name, item) is not item:
            raise NacreError(f"{self.group} has two items called {name}; rename one of them")

    def get(self, name: str) -> Item | None:
        """The item of a name, None where there is none."""
        if name not in self._items:
            self._load_packages()
        return self._items.get(name)

    def find(self, fits: Callable[[Item], bool]) -> Item | None:
        """The first item that fits."""
        item = next(filter(fits, self._items.values()), None)
        return item if item or self._loaded_packages else next(filter(fits, map(self.__getitem__, self)), None)

    def __getitem__(self, name: str) -> Item:
        item = self.get(name)
        if item is None:
            raise KeyError(name)
        return item

    def __iter__(self) -> Iterator[str]:
        self._load_packages()
        return iter(list(self._items))

    def _load_packages(self) -> None:
        if self._loaded_packages:
            return
        from importlib.metadata import entry_points  # takes time, and is seldom needed

        self._loaded_packages = True
        for point in entry_points(group=self.group):
            self.add(point.name, point.load())
