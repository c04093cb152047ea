"""The card of a model: what it is, what made it, whose recordings it learnt from, where it is weak. Markdown."""

from __future__ import annotations

from typing import Any

from nacre.model.bundle import Bundle
from nacre.train.recipe import Recipe, build

CARD = "README.md"  # of a model folder
DENOISER = "## Denoiser"


def card(bundle: Bundle, recipe: Recipe) -> str:
    """The card of a model that a recipe made, with a section on its denoiser if it has one."""
    made = bundle.facts.training
    rates = ", ".join(f"{rate:.2f}" for rate in bundle.rates_kbps)
    tables = ", ".join(f"{rate:.2f}" for rate in bundle.static_rates_kbps)
    lines = [
        f"# {bundle.name}",
        f"{recipe.description}. Licence of the weights: {recipe.licence or 'not stated'}.",
        f"Fingerprint {bundle.fingerprint.hex()}, {bundle.size_bytes / 1e6:.1f} MB, "
        f"algorithmic latency {bundle.config.latency_ms:.0f} ms when frames are sent one by one.",
        f"Mean rate of each quality level on training speech, kb/s of packets: {rates}."
        + (f" By static tables: {tables}." if bundle.has_context else ""),
        "## Training",
        f"Recipe `{recipe.name}`, seed {recipe.seed}: {made['steps']} steps, "
        f"{made['audio_seconds_seen']} s of excerpts from {made['corpus_hours']} h of recordings. "
        "All settings are in model.json.",
        "## Data and licences",
        _listed(recipe.card.sources or made["sources"]),
        "## Known weaknesses",
        "\n".join(f"- {weakness}" for weakness in recipe.card.weaknesses) or "Not stated.",
    ]
    text = "\n\n".join(lines) + "\n"
    return with_denoiser(text, bundle.metadata["denoiser"]) if bundle.denoiser else text


def write_card(bundle: Bundle, recipe: Recipe | None = None) -> None:
    """Put its card into a model's folder: by this recipe, or by that in model.json; none where there is neither."""
    if recipe is None and (made := bundle.facts.training.get("recipe")):
        recipe = build(Recipe, made)
    if recipe is not None:
        (bundle.folder / CARD).write_text(card(bundle, recipe), "utf-8")


def with_denoiser(text: str, denoiser: dict[str, Any]) -> str:
    """A card with a section on the denoiser, in place of the one it has; `denoiser` is what model.json says of it."""
    made = denoiser.get("training") or {}
    recipe = made.get("recipe") or {}
    seen = f"{made.get('steps')} steps, {made.get('audio_seconds_seen', 0) / 3600:.1f} h of excerpts"
    steps = f"Recipe `{recipe.get('name')}`, seed {recipe.get('seed')}: {seen}."
    licence = f"Licence of the weights: {recipe.get('licence') or 'not stated'}."
    before = text.split(DENOISER)[0].rstrip()
    return "\n\n".join([*filter(None, [before]), DENOISER, f"{steps} {licence}", _listed(recipe.get("sources"))]) + "\n"


def _listed(sources: Any) -> str:
    return "\n".join(f"- {source}" for source in sources or ["not stated"])
