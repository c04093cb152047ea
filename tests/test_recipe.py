"""Recipes: every mistake ends in one line that names the place and the way out; the shipped ones load."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)

from nacre import recipes
from nacre.core.errors import BundleError, TrainError
from nacre.train.denoise_recipe import is_denoiser, load_denoise_recipe
from nacre.train.recipe import PARTS, Recipe, load_recipe, read_values, recipe_of

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))

SMALL = """
name = "small"
[data]
batch = 4
[[stage]]
name = "joint"
steps = 10
"""


@pytest.fixture
def recipe_file(tmp_path):
    """A function that writes a recipe and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def test_shipped_recipes_are_there():
    assert {"speech-16k.toml", "tiny.toml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_load(path):
    if is_denoiser(read_values(path)):
        assert load_denoise_recipe(path).name == path.stem
        return
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.steps == sum(stage.steps for stage in recipe.stage) > 0


def test_a_recipe_states_only_its_difference(recipe_file):
    recipe = load_recipe(recipe_file(SMALL))
    (stage,) = recipe.stage
    assert (recipe.data.batch, stage.steps, stage.train) == (4, 10, PARTS)
    assert recipe == Recipe("small", (stage,), data=recipe.data)


def test_whole_numbers_may_stand_for_fractions(recipe_file):
    value = load_recipe(recipe_file(SMALL), ("data.excerpt_s=2",)).data.excerpt_s
    assert (value, type(value)) == (2.0, float)


@pytest.mark.parametrize(
    ("line", "place", "near"),
    [
        ("sed = 1", "sed", "seed"),
        ("[data]\nbatches = 4", "data.batches", "batch"),
        ("[net]\nwidht = 4", "net.widht", "width"),
        ("[codec]\nlatent_dim = 4", "codec.latent_dim", "latent_dims"),
        ("[degrade]\nspeed = 0.1", "degrade.speed", "speed_range"),
    ],
)
def test_unknown_keys_name_the_nearest(recipe_file, line, place, near):
    text = 'name = "x"\n' + line + '\n[[stage]]\nname = "joint"\nsteps = 1\n'
    with pytest.raises(TrainError, match=rf"^{place} is an unknown key.*did you mean {near}\?$"):
        load_recipe(recipe_file(text))


def test_unknown_key_of_a_stage(recipe_file):
    with pytest.raises(TrainError, match=r"^stage\[0\]\.step is an unknown key.*did you mean steps\?$"):
        load_recipe(recipe_file(SMALL + "step = 3\n"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.batch=4.5", "data.batch is 4.5; it must be a whole number"),
        ("data.batch=true", "data.batch is True; it must be a whole number"),
        ("data.batch=", "data.batch is ''; it must be a whole number"),
        ("data.excerpt_s=long", "data.excerpt_s is 'long'; it must be a number"),
        ("data.excerpt_s=nan", "data.excerpt_s is nan; it must be a finite number"),
        ("stage.0.learning_rate=inf", "stage[0].learning_rate is inf; it must be a finite number"),
        ("compile=1", "compile is 1; it must be true or false"),
        ("name=3", "name is 3; it must be text"),
        ("data=3", "data is 3; it must be a table"),
        ("stage=3", "stage is 3; it must be a list"),
        ("stage=[3]", "stage[0] is 3; it must be a table"),
        ("stage.0.train=[1]", "stage[0].train[0] is 1; it must be text"),
        ('stage.0.train="encoder"', "stage[0].train is 'encoder'; it must be a list"),
        ("degrade.speed_range=[1.0]", "degrade.speed_range is [1.0]; it must be 2 values"),
        ("net.width={}", "net.width is {}; it must be a whole number"),
    ],
)
def test_wrong_types(recipe_file, change, message):
    with pytest.raises(TrainError) as caught:
        load_recipe(recipe_file(SMALL), (change,))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "change",
    [
        "kind=rvqq",
        "seed=-1",
        "checkpoint_steps=0",
        "validate_steps=-3",
        "ema_decay=1.5",
        "stage=[]",
        "stage.0.steps=0",
        "stage.0.steps=-5",
        "stage.0.learning_rate=0",
        "stage.0.warmup_steps=-1",
        "stage.0.decay_share=1.2",
        "stage.0.train=[]",
        'stage.0.train=["encoder", "critic"]',
        "data.batch=0",
        "data.batch=-4",
        "data.excerpt_s=-1.0",
        "data.excerpt_s=0.01",  # shorter than the delay: nothing to compare
        "data.balance=-0.1",
        "net.width=0",
        "net.kernel=-7",
        "net.expansion=0",
        "net.encoder_blocks=0",
        "net.output_blocks=-1",
        "rate.lowest_kbps=0",
        "rate.lowest_kbps=20.0",  # above highest_kbps
        "rate.start_weight=0",
        "rate.start_weight=2.0",
        "degrade.speed_probability=-0.1",
        "degrade.noise_probability=1.1",
        "degrade.level_spread_db=-1",
        "degrade.speed_range=[1.2, 0.8]",
        "degrade.speed_range=[0.0, 1.0]",
        "degrade.noise_snr_db=[30.0, 5.0]",
        "loss.windows=[]",
        "loss.windows=[1024, 510, 256]",
        "loss.mel_bands=[80]",
        "loss.mel_bands=[80, 0, 40]",
        "loss.log_mel=-1",
        "loss.exponent=0",
    ],
)
def test_values_that_cannot_be_meant(recipe_file, change):
    with pytest.raises(TrainError, match="; ") as caught:
        load_recipe(recipe_file(SMALL), (change,))
    key = change.partition("=")[0].split(".")[-1]
    assert key in str(caught.value) or key == "lowest_kbps"


@pytest.mark.parametrize(
    "change", ["codec.levels=0", "codec.levels=17", "codec.hop_samples=-320", "codec.step_samples=7"]
)
def test_codec_settings_are_checked(recipe_file, change):
    with pytest.raises(BundleError, match="must"):
        load_recipe(recipe_file(SMALL), (change,))


def test_what_must_be_there(recipe_file):
    with pytest.raises(TrainError, match=r"^stage has no value"):
        load_recipe(recipe_file('name = "x"'))
    with pytest.raises(TrainError, match=r"^stage\[0\]\.steps has no value"):
        load_recipe(recipe_file('name = "x"\n[[stage]]\nname = "joint"'))


def test_files_that_are_no_recipe(recipe_file, tmp_path):
    with pytest.raises(TrainError, match="is no TOML"):
        load_recipe(recipe_file("name = \n"))
    with pytest.raises(TrainError, match=r"absent\.toml cannot be read: No such file"):
        load_recipe(tmp_path / "absent.toml")
    with pytest.raises(TrainError, match="recipes are in the folder"):
        load_recipe(tmp_path)
    (tmp_path / "sound.toml").write_bytes(b"RIFF\xff\xfe\x00")
    with pytest.raises(TrainError, match="recipes are in the folder"):
        load_recipe(tmp_path / "sound.toml")


def test_overrides(recipe_file):
    changes = ("data.batch=8", "stage.0.steps=100", "name=other", "net.width = 32", 'stage.0.train=["decoder"]')
    recipe = load_recipe(recipe_file(SMALL), changes)
    assert (recipe.data.batch, recipe.name, recipe.net.width) == (8, "other", 32)
    assert (recipe.stage[0].steps, recipe.stage[0].train) == (100, ("decoder",))


def test_the_last_override_wins(recipe_file):
    assert load_recipe(recipe_file(SMALL), ("seed=1", "seed=2")).seed == 2


@pytest.mark.parametrize(
    "change",
    [
        "seed",
        "",
        "=3",
        "stage.1.steps=3",
        "stage.x.steps=3",
        "name.x=3",
        "data.batch.x=3",
        "data.batch.x.y=3",
        "dta.batch=3",
    ],
)
def test_overrides_that_lead_nowhere(recipe_file, change):
    with pytest.raises(TrainError, match="; "):
        load_recipe(recipe_file(SMALL), (change,))


def test_recipe_of_a_run(tmp_path, recipe_file):
    recipe = load_recipe(recipe_file(SMALL))
    (tmp_path / "recipe.json").write_text(json.dumps(asdict(recipe)))
    assert recipe_of(tmp_path) == recipe
    (tmp_path / "recipe.json").write_text('{"name": "sma')
    with pytest.raises(TrainError, match="is no folder written by `nacre train`"):
        recipe_of(tmp_path)
    with pytest.raises(TrainError, match="is no folder written by `nacre train`"):
        recipe_of(tmp_path / "absent")


def test_stages_follow_one_another(recipe_file):
    text = SMALL + '[[stage]]\nname = "late"\nsteps = 5\n'
    recipe = load_recipe(recipe_file(text))
    assert [recipe.stage_at(step) for step in (0, 9, 10, 14, 15)] == [(0, 0), (0, 9), (1, 0), (1, 4), (1, 5)]


def test_recipes_by_name(nacre):
    found = nacre("recipes")
    assert found.rc == 0
    assert b"speech-16k" in found.stdout
    assert b"A Gaussian VAE" in found.stdout
    assert recipes.find("speech-16k").name == "speech-16k.toml"
    assert recipes.find("mine.toml") == Path("mine.toml")
    with pytest.raises(TrainError, match="lists: adversarial"):
        recipes.find("speech")
