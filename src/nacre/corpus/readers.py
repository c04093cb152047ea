"""Shards as data sets of torch: by index, or streamed in shards that ranks and workers share out among them.

>>> stream = ShardStream("latents/", shuffle=1000)  # doctest: +SKIP
>>> loader = DataLoader(stream, batch_size=32, num_workers=2, collate_fn=pad_batch)  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from nacre.corpus.columns import Row
from nacre.corpus.reading import Corpus

Sample = dict[str, Any]


class ShardDataset(Dataset[Sample]):
    """Rows by index, in the order of the source: arrays are tensors [T, ...], the rest is as it is.

    With a sampler that goes through the rows at random, every row reads a block of up to 8 MB: ShardStream is for that.
    """

    def __init__(self, folder: str | Path, columns: Sequence[str] | None = None):
        self.corpus = Corpus(folder, columns)

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index: int) -> Sample:
        return _tensors(self.corpus[index])


class ShardStream(IterableDataset[Sample]):
    """Rows one after another, each to one worker of one rank. `shuffle`: rows that are drawn from, 0 for none.

    Shards are dealt out, or single rows where there are fewer shards than workers of all ranks. Shards and rows come
    in another order in each epoch, which `set_epoch` names; the same seed and epoch give the same order. `equal` cuts
    all parts to the length of the shortest, as gradients that are averaged between ranks need it.
    `rank` and `world` are by default those of torch.distributed, or of RANK and WORLD_SIZE.
    """

    def __init__(
        self,
        folder: str | Path,
        columns: Sequence[str] | None = None,
        *,
        shuffle: int = 0,
        seed: int = 0,
        equal: bool = False,
        rank: int | None = None,
        world: int | None = None,
    ):
        self.corpus = Corpus(folder, columns)
        here, all_of_them = _place()
        self.rank, self.world = here if rank is None else rank, all_of_them if world is None else world
        self.shuffle, self.seed, self.equal, self.epoch = shuffle, seed, equal, 0

    def set_epoch(self, epoch: int) -> None:
        """Another order of the same rows, for loaders that are begun from now on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        part, parts = self.rank * workers + number, self.world * workers
        rows: Iterator[Row] = self._rows(part, parts)
        if self.shuffle:
            rows = _mixed(rows, self.shuffle, np.random.default_rng([self.seed, self.epoch, part]))
        most = min(self._sizes(parts)) if self.equal else None
        for count, row in enumerate(rows):
            if count == most:
                return
            yield _tensors(row)

    def _order(self) -> list[int]:
        """Shards in the order of this epoch, the same everywhere."""
        count = len(self.corpus.records)
        if not self.shuffle:
            return list(range(count))
        return [int(shard) for shard in np.random.default_rng([self.seed, self.epoch]).permutation(count)]

    def _rows(self, part: int, parts: int) -> Iterator[Row]:
        order = self._order()
        if len(order) >= parts:
            for shard in order[part::parts]:
                yield from self.corpus.rows(shard)
            return
        at = 0  # of all rows
        for shard in order:
            size = self.corpus.records[shard].rows
            opened = self.corpus.open_shard(shard)
            for index in range((part - at) % parts, size, parts):
                yield opened.row(index)
            at += size

    def _sizes(self, parts: int) -> list[int]:
        """Rows of every part."""
        rows, order = [record.rows for record in self.corpus.records], self._order()
        if len(order) >= parts:
            return [sum(rows[shard] for shard in order[part::parts]) for part in range(parts)]
        return [(sum(rows) - part + parts - 1) // parts for part in range(parts)]


def pad_batch(samples: list[Sample]) -> Sample:
    """Samples as a batch, for `collate_fn`: arrays [T, ...] padded with zeros to [B, T, ...].

    Beside each of these stand NAME_lengths [B] and NAME_mask [B, T], true where there are frames. Numbers become
    tensors [B], text and bytes lists.
    """
    batch: Sample = {}
    for name, first in samples[0].items():
        cells = [sample[name] for sample in samples]
        if isinstance(first, torch.Tensor):
            lengths = torch.tensor([len(cell) for cell in cells])
            batch[name] = torch.nn.utils.rnn.pad_sequence(cells, batch_first=True)
            batch[f"{name}_lengths"] = lengths
            batch[f"{name}_mask"] = torch.arange(int(lengths.max())) < lengths[:, None]
        elif isinstance(first, (int, float)) and None not in cells:
            batch[name] = torch.tensor(cells)
        else:
            batch[name] = cells
    return batch


def _tensors(row: Row) -> Sample:
    return {name: torch.from_numpy(cell) if isinstance(cell, np.ndarray) else cell for name, cell in row.items()}


def _mixed(rows: Iterator[Row], size: int, random: np.random.Generator) -> Iterator[Row]:
    """Rows drawn from the next `size` of them."""
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if len(held) > size:
            place = int(random.integers(len(held)))
            held[place], held[-1] = held[-1], held[place]
            yield held.pop()
    for place in random.permutation(len(held)).tolist():
        yield held[place]


def _place() -> tuple[int, int]:
    """(rank, world) of this process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
