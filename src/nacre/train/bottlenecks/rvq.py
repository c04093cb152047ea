"""Codebooks in a row, each for what the ones before left over, with gradients passed straight through.

Van den Oord et al., 2017; residual: Zeghidour et al., 2021; codes in few dimensions: Yu et al., 2022. One model serves
several rates because each item of a batch uses as many codebooks as its level says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.core.errors import TrainError
from nacre.quantise import rvq
from nacre.quantise.base import MOST_BYTES, Quantiser
from nacre.train.bottlenecks.base import Bottleneck, Quantised, Settings, used_columns, valid_frames
from nacre.train.checks import check, not_negative, one_of, share

KMEANS_ROUNDS = 15
KMEANS_ROWS = 16_384  # values compared with all codes at a time
FIT_FRAMES, FIT_EACH = 20_000, 20  # frames for k-means: at least so many, and so many a code
FEWEST_HITS = 1e-3  # of a code whose moving average still says where it is


@dataclass(frozen=True)
class ResidualSettings(Settings):
    """`codebooks` of `codebook_size` codes in `code_dims` dimensions, learned by `update`: "ema" or "gradient".

    `rate_weight` is as in the codec's quantiser, in training too. Moving averages keep `decay` a step. Codes chosen
    less than `revive_below` times a batch move to where data is. `commitment` weighs how far latents lie from codes.
    """

    rate_weight: float = 0.0
    codebooks: int = 16
    codebook_size: int = 1024
    code_dims: int = 8
    update: str = "ema"
    decay: float = 0.98
    commitment: float = 0.25
    revive_below: float = 0.05

    def __post_init__(self) -> None:
        check(self, "quantiser", "0 or more", not_negative, "rate_weight", "commitment", "revive_below")
        check(self, "quantiser", "1 to 64", lambda n: 1 <= n <= 64, "codebooks", "code_dims")
        check(self, "quantiser", "2 to 4096", lambda n: 2 <= n <= 4096, "codebook_size")
        one_of(self, "quantiser", ("ema", "gradient"), "update")
        check(self, "quantiser", "0 to 1", share, "decay")

    def check_codec(self, codec: CodecConfig) -> None:
        """Codes have no more dims than latents, and codebooks fit a model folder. Raises TrainError."""
        wanted = f"at most codec.latent_dims, {codec.latent_dims}"
        check(self, "quantiser", wanted, lambda dims: dims <= codec.latent_dims, "code_dims")
        largest = MOST_BYTES // (5 * self.codebooks * self.code_dims)  # float32, and a little for heads
        wanted = f"at most {largest} with so many books and dims"
        check(self, "quantiser", wanted, lambda entries: entries <= largest, "codebook_size")

    def check_corpus(self, frames: int) -> None:
        """A codebook has no more entries than the recordings have frames. Raises TrainError."""
        if self.codebook_size > frames:
            found = f"quantiser.codebook_size is {self.codebook_size}, and the recordings have {frames} frames"
            raise TrainError(f"{found}; lower it to that in the recipe, or give more recordings")


class ResidualVQ(Bottleneck):
    """Codes [K, A, d] behind projections inward [K, D, d] and outward [K, d, D].

    `hits` [K, A] are moving averages of how often each code is chosen in a batch.
    """

    settings_type = ResidualSettings
    fits = True
    hits: Tensor
    books: Tensor
    codes: Tensor
    sums: Tensor

    def __init__(self, codec: CodecConfig, settings: ResidualSettings):
        super().__init__()
        self.settings, self.width_in = settings, codec.latent_dims
        count, entries, dims, wide = settings.codebooks, settings.codebook_size, settings.code_dims, codec.latent_dims
        start = torch.linalg.qr(torch.randn(count, wide, dims))[0] if dims <= wide else torch.randn(count, wide, dims)
        self.inward = nn.Parameter(start)
        self.outward = nn.Parameter(start.transpose(1, 2).clone())
        codes = torch.randn(count, entries, dims) * 0.5 ** torch.arange(count).clamp(max=6).view(-1, 1, 1)
        if settings.update == "ema":
            self.register_buffer("codes", codes)
            self.register_buffer("sums", codes.clone())
        else:
            self.codes = nn.Parameter(codes)
        self.register_buffer("hits", torch.ones(count, entries))
        self.register_buffer("books", torch.tensor(used_columns(codec.levels, count)), persistent=False)

    def forward(self, latents: Tensor, level: Tensor, inside: Tensor | None = None) -> Quantised:
        """latents [B, T, D], level [B] -> sums of codes; bits of fixed-length indices; commitment as penalty.

        Where gradients do not reach the projections, the quantiser is frozen: its codes stay too.
        """
        latents, books = latents.float(), self.books[level]
        left, penalty, chosen = latents, torch.zeros_like(latents[:, :, 0]), []
        for book in range(int(books.max())):
            active = (books > book).view(-1, 1, 1)
            low = left @ self.inward[book]  # [B, T, d]
            index = nearest(low.detach(), self.codes[book].detach(), self._price(book))  # [B, T]
            code = self.codes[book][index]
            loss = self.settings.commitment * (low - code.detach()).square().mean(2)
            if self.settings.update == "gradient":
                loss = loss + (low.detach() - code).square().mean(2)
            penalty = penalty + loss * active[:, :, 0]
            straight = low + (code - low).detach()
            if self.settings.update == "gradient":
                straight = straight + (code - code.detach())
            left = left - active * (straight @ self.outward[book])
            items = active[:, 0, 0]
            valid = None if inside is None else inside[items]
            chosen.append(
                (book, valid_frames(low.detach()[items], valid), valid_frames(index[items].unsqueeze(2), valid)[:, 0])
            )
        if self.training and self.inward.requires_grad:
            self._learn(chosen)
        bits = (books * math.log2(self.settings.codebook_size)).float().unsqueeze(1).expand(latents.shape[:2])
        return Quantised(latents - left, torch.zeros_like(bits), bits, penalty)

    def _price(self, book: int) -> Tensor:
        """Squared distance [A] that the bits of each code of a book count for."""
        share = (self.hits[book] + 1e-3) / (self.hits[book] + 1e-3).sum()
        return -self.settings.rate_weight * share.log2()

    @torch.no_grad()
    def _learn(self, chosen: list[tuple[int, Tensor, Tensor]]) -> None:
        """Moving averages of hits and codes over all processes; codes that nobody chose move to where data is.

        `chosen` holds (book, values [N, d], their indices [N]); which books it has may differ between processes.
        """
        hits, sums = torch.zeros_like(self.hits), torch.zeros_like(self.codes)
        for book, low, index in chosen:
            hits[book] = torch.bincount(index, minlength=hits.shape[1]).to(hits.dtype)
            sums[book].index_add_(0, index, low)
        if dist.is_initialized():
            dist.all_reduce(hits)
            dist.all_reduce(sums)
        seen, gain = hits.sum(1) > 0, 1 - self.settings.decay
        self.hits[seen] = torch.lerp(self.hits[seen], hits[seen], gain)
        if self.settings.update == "ema":
            self.sums[seen] = torch.lerp(self.sums[seen], sums[seen], gain)
            known = seen.unsqueeze(1) & (self.hits > FEWEST_HITS)
            self.codes[known] = self.sums[known] / self.hits[known].unsqueeze(1)
        self._revive(seen.unsqueeze(1) & (self.hits < self.settings.revive_below), chosen)

    def _revive(self, dead: Tensor, chosen: list[tuple[int, Tensor, Tensor]]) -> None:
        """Give dead codes [K, A] the places of values drawn from the batch, the same on all processes."""
        if not dead.any():
            return
        fresh, mine = torch.zeros_like(self.codes), torch.zeros(len(dead), device=dead.device)
        for book, low, _ in chosen:
            if len(low):
                fresh[book], mine[book] = low[torch.randint(len(low), dead.shape[1:], device=low.device)], 1
        if dist.is_initialized():
            owners = torch.zeros(dist.get_world_size(), len(dead), device=dead.device)
            owners[dist.get_rank()] = mine
            dist.all_reduce(owners)
            fresh *= (owners.argmax(0) == dist.get_rank()).view(-1, 1, 1)  # of the first that has values of a book
            dist.all_reduce(fresh)
        self.codes.data[dead] = fresh[dead]
        self.hits[dead] = hit = max(2 * self.settings.revive_below, 1e-2)
        if self.settings.update == "ema":
            self.sums[dead] = fresh[dead] * hit

    @property
    def fit_frames(self) -> int:
        """For k-means."""
        return max(FIT_FRAMES, FIT_EACH * self.settings.codebook_size)

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Start from latents [N, D]: main axes of what is left over, then k-means along them, book by book."""
        left, entries = latents.float(), self.codes.shape[1]
        for book in range(len(self.codes)):
            axes = torch.linalg.eigh(torch.cov(left.T))[1].flip(1)[:, : self.codes.shape[2]]
            self.inward[book], self.outward[book] = axes, axes.T
            low = left @ axes
            codes, hits = kmeans(low, entries)
            self.codes.data[book], self.hits[book] = codes, hits * (self.hits.sum() / self.hits.numel() / hits.mean())
            if self.settings.update == "ema":
                self.sums[book] = codes * self.hits[book].unsqueeze(1)
            left = left - codes[_assigned(low, codes)] @ axes.T

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """Least and mean perplexity of the codebooks, as shares of their size, and dead codes, as a share of all."""
        share = self.hits / self.hits.sum(1, keepdim=True).clamp(min=1e-9)
        perplexity = torch.exp(-(share * share.clamp(min=1e-12).log()).sum(1)) / self.hits.shape[1]
        dead = (self.hits < self.settings.revive_below).float().mean()
        return {
            "codebook/least_use": float(perplexity.min()),
            "codebook/mean_use": float(perplexity.mean()),
            "codebook/dead": float(dead),
        }

    @torch.no_grad()
    def export_quantiser(self) -> Quantiser:
        """For the codec."""
        codes, inward, outward = (
            value.detach().cpu().float().numpy() for value in (self.codes, self.inward, self.outward)
        )
        weight = np.array([self.settings.rate_weight], np.float32)
        return rvq.ResidualVQ(codes, inward, outward, self.books.cpu().numpy().astype(np.uint8), weight)


def nearest(values: Tensor, codes: Tensor, price: Tensor | float = 0.0) -> Tensor:
    """Index [...] of the code [A, d] next to each of values [..., d], `price` [A] added to its squared distance."""
    return (values @ codes.T - 0.5 * (codes.square().sum(1) + price)).argmax(-1)


def kmeans(values: Tensor, entries: int) -> tuple[Tensor, Tensor]:
    """(codes [A, d], how many values each has [A]) of values [N, d], N at least A; Lloyd's rounds.

    The start are values drawn by their squared distance from those drawn before (k-means++: Arthur and Vassilvitskii,
    2007). A code without values takes the place of a random one.
    """
    codes = torch.empty(entries, values.shape[1], device=values.device)
    away = torch.full((len(values),), torch.inf, device=values.device)
    for place in range(entries):
        weights = away.clamp(min=1e-30) if place else torch.ones_like(away)
        codes[place] = values[torch.multinomial(weights, 1)[0]]
        away = torch.minimum(away, (values - codes[place]).square().sum(1))
    for _ in range(KMEANS_ROUNDS):
        index = _assigned(values, codes)
        count = torch.bincount(index, minlength=entries).to(values.dtype)
        codes = torch.zeros_like(codes).index_add_(0, index, values) / count.clamp(min=1).unsqueeze(1)
        empty = torch.nonzero(count == 0).flatten()
        codes[empty] = values[torch.randint(len(values), (len(empty),))]
    return codes, torch.bincount(_assigned(values, codes), minlength=entries).to(values.dtype)


def _assigned(values: Tensor, codes: Tensor) -> Tensor:
    """`nearest` of many values [N, d], in little memory."""
    return torch.cat([nearest(rows, codes) for rows in values.split(KMEANS_ROWS)])
