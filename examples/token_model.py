"""Train a small language model on tokens from shards, and say how many bits a frame it needs.

nacre corpus tokens calls/ -o tokens --level 3
python examples/token_model.py tokens
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn

import nacre
from nacre.corpus.readers import ShardStream, pad_batch

CUT = 200  # frames of a recording in a batch, at most
COLUMNS = ["tokens"]


class TokenModel(nn.Module):
    """tokens [B, T, K] -> log-probabilities [B, T, K, A] of each frame by those before it: a GRU over frames."""

    def __init__(self, alphabet: list[int], width: int = 128):
        super().__init__()
        self.size = max(alphabet)
        self.register_buffer("starts", torch.arange(len(alphabet)) * self.size)
        known = torch.arange(self.size)[None] < torch.tensor(alphabet)[:, None]  # [K, A]
        self.register_buffer("floor", torch.where(known, 0.0, -torch.inf))
        self.embed = nn.EmbeddingBag(len(alphabet) * self.size, width, mode="sum")
        self.first = nn.Parameter(torch.zeros(width))
        self.past = nn.GRU(width, width, batch_first=True)
        self.scores = nn.Linear(width, len(alphabet) * self.size)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, frames, columns = tokens.shape
        rows = self.embed((tokens + self.starts).reshape(-1, columns)).reshape(batch, frames, -1)
        before = torch.cat([self.first.expand(batch, 1, -1), rows[:, :-1]], 1)
        scores = self.scores(self.past(before)[0]).reshape(batch, frames, columns, self.size)
        return (scores + self.floor).log_softmax(-1)


def bits(model: TokenModel, batch: dict[str, Tensor]) -> Tensor:
    """Bits of each frame of a batch [frames], whatever is padding left out."""
    tokens, mask = batch["tokens"][:, :CUT].long(), batch["tokens_mask"][:, :CUT]
    found = model(tokens).gather(3, tokens[..., None])[..., 0].sum(2)
    return -found[mask] / math.log(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--model", default="speech-16k", help="the one that made the tokens")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    stream = ShardStream(given.shards, COLUMNS, shuffle=2000)
    layout = nacre.load(given.model).token_format(stream.corpus.facts["level"])
    rows = list(stream)
    test, train = rows[::5], [row for place, row in enumerate(rows) if place % 5]
    model = TokenModel(layout.alphabet.tolist())
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for epoch in range(given.epochs):
        loader = torch.utils.data.DataLoader(train, batch_size=16, shuffle=True, collate_fn=pad_batch)
        costs = []
        for batch in loader:
            loss = bits(model, batch).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            costs.append(float(loss.detach()))
        print(f"epoch {epoch + 1}: {sum(costs) / len(costs):.1f} bits a frame")
    with torch.no_grad():
        found = float(bits(model, pad_batch(test)).mean())
    fixed, tables = (value / layout.frame_rate_hz for value in (layout.fixed_bits_per_s, layout.coded_bits_per_s))
    print(f"test: {found:.1f} bits a frame; fixed-length codes {fixed:.1f}, the model's tables expect {tables:.1f}")


if __name__ == "__main__":
    main()
