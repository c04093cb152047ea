"""Train a keyword spotter on latents from shards.

    nacre corpus latents words.csv -o latents --keep label
    python examples/spot_words.py latents

`words.csv` has the columns audio and label. One recording of five is left for the test.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from nacre.corpus.readers import ShardStream, pad_batch

COLUMNS = ["row", "label", "latents"]


class Spotter(nn.Module):
    """latents [B, T, D] and their mask [B, T] -> scores [B, words], by two convolutions and what is highest in time."""

    def __init__(self, dims: int, words: int, width: int = 96):
        super().__init__()
        self.first = nn.Conv1d(dims, width, 5, padding=2)
        self.second = nn.Conv1d(width, width, 5, padding=2)
        self.last = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * width, words))

    def forward(self, latents: Tensor, mask: Tensor) -> Tensor:
        kept = mask[:, None, :]
        found = self.first(latents.transpose(1, 2)).relu() * kept
        found = self.second(found).relu() * kept
        mean = found.sum(2) / kept.sum(2)
        return self.last(torch.cat([mean, found.amax(2)], 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    stream = ShardStream(given.shards, COLUMNS, shuffle=2000)
    test = [row for row in stream if row["row"] % 5 == 0]
    words = sorted({row["label"] for row in stream})
    spotter = Spotter(test[0]["latents"].shape[1], len(words))
    optimiser = torch.optim.AdamW(spotter.parameters(), 2e-3)
    for epoch in range(given.epochs):
        stream.set_epoch(epoch)
        rows = (row for row in stream if row["row"] % 5)
        loader = torch.utils.data.DataLoader(list(rows), batch_size=32, collate_fn=pad_batch)
        total, seen = 0.0, 0
        for batch in loader:
            target = torch.tensor([words.index(label) for label in batch["label"]])
            loss = nn.functional.cross_entropy(spotter(batch["latents"], batch["latents_mask"]), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total, seen = total + float(loss.detach()) * len(target), seen + len(target)
        print(f"epoch {epoch + 1}: loss {total / seen:.3f} over {seen} recordings")
    spotter.eval()
    with torch.no_grad():
        batch = pad_batch(test)
        guess = spotter(batch["latents"], batch["latents_mask"]).argmax(1).tolist()
    right = sum(words[place] == label for place, label in zip(guess, batch["label"], strict=True))
    print(f"{right} of {len(test)} words it never heard are right, {100 * right / len(test):.1f} %, of {len(words)}")


if __name__ == "__main__":
    main()
