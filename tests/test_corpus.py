"""Corpora in shards: sources, destinations, the same bytes however they are worked, bad rows, stops and starts."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import pickle
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nacre.batch.coded import codec_of
from nacre.codec.stream import StreamDecoder
from nacre.core.errors import NacreError, StreamError, UsageError
from nacre.corpus import run, shards, work
from nacre.corpus.coders import Making
from nacre.corpus.columns import Column
from nacre.corpus.manifest import Manifest, read_records
from nacre.corpus.reading import Corpus
from nacre.corpus.recordings import InFile, Recording, shards_of
from nacre.corpus.run import Request, run_corpus
from nacre.corpus.sources import Wanted, open_source
from nacre.io import audio
from nacre.tools import features

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COUNT, RATE_HZ = 10, 16_000
MEAN = Making("features", "", {"kind": "mfcc", "pool": "mean"})


class Here:
    """An engine without processes, which ends its jobs in any order. `deaths`: (shard, row) where one ends suddenly."""

    name, workers = "here", 3
    deaths: tuple[tuple[int, int], ...] = ()
    stop_after: int | None = None

    def __init__(self, *_):
        self.jobs, self.random, self.ended = [], random.Random(7), 0

    @property
    def under_way(self) -> int:
        return len(self.jobs)

    def submit(self, job) -> None:
        assert len(self.jobs) < self.workers
        self.jobs.append(job)

    def wait(self):
        if self.ended == self.stop_after:
            raise KeyboardInterrupt
        self.ended += 1
        job = self.jobs.pop(self.random.randrange(len(self.jobs)))
        for shard, row in self.deaths:
            if shard == job.shard.number and row not in job.fatal:
                Path(job.marker).write_bytes(b"%-20d" % row)
                return job, None
        try:
            return job, work.make_shard(job)
        except NacreError as error:
            return job, error

    def close(self, interrupted: bool) -> None:
        self.jobs.clear()


@pytest.fixture
def here(monkeypatch) -> type[Here]:
    """The engine of a test, to be changed at will."""
    engine = type("Engine", (Here,), {})
    monkeypatch.setattr(run, "LocalEngine", engine)
    return engine


@pytest.fixture(scope="module")
def waves(speech) -> list[np.ndarray]:
    """Recordings [N] of various lengths."""
    return [speech[4000 * index : 4000 * index + 3000 + 111 * index] for index in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, waves) -> Path:
    """The same as files in two folders."""
    root = tmp_path_factory.mktemp("sound")
    for index, wave in enumerate(waves):
        (root / f"{index // 6}").mkdir(exist_ok=True)
        audio.write(root / f"{index // 6}" / f"{index}.wav", wave[None], RATE_HZ)
    return root


def request(source, to_folder, making=MEAN, wanted=None, **more) -> Request:
    return Request(open_source(str(source), wanted or Wanted()), making, str(to_folder), quiet=True, **more)


def digests(folder) -> dict[str, str]:
    """What must not depend on how a corpus was worked."""
    return {record.file: record.sha256 for record in read_records(folder)}


def errors(folder) -> list[dict[str, str]]:
    with open(Path(folder) / "errors.csv", newline="") as file:
        return list(csv.DictReader(file))


def encoding(model, **options) -> Making:
    settings = {"bitrate_kbps": None, "quality": 50, "stereo": "auto", "prior": "context", "denoise": False}
    return Making("encode", str(model), settings | options)


def wav(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    import soundfile

    soundfile.write(file, wave, RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()


# --- the same bytes however they are worked


@pytest.mark.slow
def test_shards_are_the_same_for_any_number_of_workers(nacre, folder, tmp_path, tiny_model):
    options = ["-m", tiny_model, "--quality", 50, "--shard-rows", 3]
    for jobs in (1, 2, 4):
        found = nacre("corpus", "encode", folder, "-o", f"d{jobs}", "-j", jobs, *options)
        assert found.rc == 0, found.stderr
        assert "10 recordings in 4 shards" in found.stderr
    assert digests(tmp_path / "d1") == digests(tmp_path / "d2") == digests(tmp_path / "d4")
    assert (tmp_path / "d1/manifest.jsonl").read_bytes() == (tmp_path / "d4/manifest.jsonl").read_bytes()
    assert nacre("corpus", "verify", "d1").rc == 0


@pytest.mark.slow
def test_ray_makes_the_same_shards(here, folder, tmp_path, tiny_model):
    pytest.importorskip("ray")
    making = encoding(tiny_model)
    assert run_corpus(request(folder, tmp_path / "here", making, shard_rows=3)).good
    assert run_corpus(request(folder, tmp_path / "ray", making, shard_rows=3, engine="ray", jobs=2)).good
    assert digests(tmp_path / "here") == digests(tmp_path / "ray")


def test_shards_depend_on_order_number_and_size_alone():
    rows = [Recording(row, str(row), InFile(""), size_bytes=(row % 4) << 20) for row in range(20)]
    cut = [[item.row for item in shard.recordings] for shard in shards_of(iter(rows), 5, 4)]
    assert cut == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]
    assert [len(shard.recordings) for shard in shards_of(iter(rows), 6, 1000)] == [6, 6, 6, 2]


# --- sources


def make_csv(folder: Path, out: Path) -> Path:
    path = out / "list.csv"
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "audio", "label"])
        table.writerows([f"k{i}", str(folder / f"{i // 6}/{i}.wav"), f"l{i}"] for i in range(COUNT))
    return path


def make_jsonl(folder: Path, out: Path) -> Path:
    path = out / "list.jsonl"
    names = [str(folder / f"{i // 6}/{i}.wav") for i in range(COUNT)]
    rows = [{"id": f"k{i}", "audio_filepath": name, "label": f"l{i}"} for i, name in enumerate(names)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_lhotse(folder: Path, out: Path) -> Path:
    path = out / "cuts.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for i in range(COUNT):
            name = str(folder / f"{i // 6}/{i}.wav")
            recording = {"id": f"r{i}", "sources": [{"type": "file", "channels": [0], "source": name}]}
            cut = {"id": f"k{i}", "start": 0, "duration": (3000 + 111 * i) / RATE_HZ, "channel": 0, "type": "MonoCut"}
            said = [{"text": "words", "custom": {"label": f"l{i}"}}]
            file.write(json.dumps(cut | {"recording": recording, "supervisions": said}) + "\n")
    return path


def make_tar(folder: Path, out: Path) -> Path:
    (out / "tars").mkdir()
    for number, rows in enumerate((range(6), range(6, COUNT))):
        with tarfile.open(out / f"tars/{number}.tar", "w") as tar:
            for i in rows:
                tar.add(folder / f"{i // 6}/{i}.wav", f"k{i}.wav")
                data = json.dumps({"label": f"l{i}"}).encode()
                member = tarfile.TarInfo(f"k{i}.json")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return out / "tars"


def table_of(folder: Path, how: str):
    names = [str(folder / f"{i // 6}/{i}.wav") for i in range(COUNT)]
    cells = {
        "bytes": [{"bytes": Path(name).read_bytes(), "path": None} for name in names],
        "paths": names,
        "samples": [{"array": audio.read(name)[0][0].tolist(), "sampling_rate": RATE_HZ} for name in names],
    }[how]
    return pa.table({"id": [f"k{i}" for i in range(COUNT)], "audio": cells, "label": [f"l{i}" for i in range(COUNT)]})


def make_parquet(how: str):
    def make(folder: Path, out: Path) -> Path:
        pq.write_table(table_of(folder, how), out / "a.parquet", row_group_size=4)
        return out / "a.parquet"

    return make


def make_arrow(folder: Path, out: Path) -> Path:
    table, path = table_of(folder, "bytes"), out / "saved"
    path.mkdir()
    for number, part in enumerate((table.slice(0, 7), table.slice(7))):
        with pa.ipc.new_stream(path / f"data-{number}.arrow", table.schema) as writer:
            writer.write_table(part, max_chunksize=3)
    files = [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}]
    (path / "state.json").write_text(json.dumps({"_data_files": files}))
    return path


SOURCES = {
    "csv": make_csv,
    "jsonl": make_jsonl,
    "lhotse": make_lhotse,
    "tar": make_tar,
    "parquet-bytes": make_parquet("bytes"),
    "parquet-paths": make_parquet("paths"),
    "parquet-samples": make_parquet("samples"),
    "arrow": make_arrow,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_rows(here, kind, folder, tmp_path, waves):
    source = SOURCES[kind](folder, tmp_path)
    assert run_corpus(request(source, tmp_path / "out", wanted=Wanted(keep=("label",)), shard_rows=4)).good
    rows = Corpus(tmp_path / "out")
    assert [row["key"] for row in rows] == [f"k{i}" for i in range(COUNT)]
    assert [row["label"] for row in rows] == [f"l{i}" for i in range(COUNT)]
    assert [row["samples"] for row in rows] == [len(wave) for wave in waves]
    for row, wave in zip(rows, waves, strict=True):
        stored = np.round(wave * 32768).clip(-32768, 32767).astype(np.float32) / 32768  # as the files have it
        np.testing.assert_array_equal(row["mfcc"], features.extract(stored, RATE_HZ, "mfcc", "mean"))


def test_parts_of_one_file_are_those_of_its_samples(here, tmp_path, speech):
    audio.write(tmp_path / "long.wav", speech[None, :40_000], RATE_HZ)
    parts = [(0.0, 0.5), (0.4, 0.5), (1.0, 0.25), (0.1, 0.1), (2.45, 0.05)]
    lines = [{"id": str(i), "audio": "long.wav", "start": a, "duration": b} for i, (a, b) in enumerate(parts)]
    (tmp_path / "parts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run_corpus(request(tmp_path / "parts.jsonl", tmp_path / "out")).good
    stored = audio.read(tmp_path / "long.wav")[0][0]
    for row, (start, length) in zip(Corpus(tmp_path / "out"), parts, strict=True):
        wave = stored[round(start * RATE_HZ) : round((start + length) * RATE_HZ)]
        np.testing.assert_array_equal(row["mfcc"], features.extract(wave, RATE_HZ, "mfcc", "mean"))


def test_folder_without_sound_and_missing_columns_are_refused(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no recordings"):
        run_corpus(request(tmp_path / "empty", tmp_path / "out"))
    (tmp_path / "a.csv").write_text("name,text\na,b\n")
    with pytest.raises(UsageError, match="no column of audio, such as audio, only name, text"):
        open_source(str(tmp_path / "a.csv"), Wanted())
    source = make_csv(folder, tmp_path)
    with pytest.raises(UsageError, match="no column speaker to --keep, only id, audio, label"):
        open_source(str(source), Wanted(keep=("speaker",)))
    with pytest.raises(UsageError, match="is not there"):
        open_source(str(tmp_path / "none"), Wanted())
    pq.write_table(pa.table({"audio": [1, 2]}), tmp_path / "n.parquet")
    with pytest.raises(UsageError, match="holds int64; give one with bytes"):
        open_source(str(tmp_path / "n.parquet"), Wanted())


# --- .nacre files as recordings


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, folder) -> Path:
    return make_csv(folder, tmp_path_factory.mktemp("list"))


@pytest.mark.parametrize("to", [*shards.SUFFIXES, "folder"])
def test_tokens_of_files_are_read_without_making_sound(here, monkeypatch, to, labelled, tmp_path, tiny_model):
    coded, tiny = tmp_path / "coded", codec_of(str(tiny_model))
    wanted = Wanted(keep=("label",))
    assert run_corpus(request(labelled, coded, encoding(tiny_model), wanted, to="tree" if to == "folder" else to)).good
    files = [row["nacre"] for row in Corpus(coded)]
    if to == "folder":  # of files alone, as `nacre encode` leaves them
        coded, wanted = coded / "files", Wanted()
    monkeypatch.setattr(StreamDecoder, "waves", None)
    assert run_corpus(request(coded, tmp_path / "out", Making("tokens", str(tiny_model), {"level": 3}), wanted)).good
    rows = Corpus(tmp_path / "out")
    assert [row["key"] for row in rows] == [f"k{i}" + ".nacre" * (to == "folder") for i in range(COUNT)]
    if to != "folder":
        assert [row["label"] for row in rows] == [f"l{i}" for i in range(COUNT)]
    for row, file in zip(rows, files, strict=True):
        held = tiny.symbols(file)
        np.testing.assert_array_equal(row["tokens"], held.tokens)
        assert (row["rate_hz"], row["samples"]) == (held.rate_hz, held.samples)
        assert row["levels"].tolist() == held.levels.tolist()


def test_latents_and_features_of_files_are_those_of_their_sound(here, labelled, tmp_path, tiny_model):
    coded, tiny = tmp_path / "coded", codec_of(str(tiny_model))
    assert run_corpus(request(labelled, coded, encoding(tiny_model))).good
    waves = [tiny.decode(row["nacre"])[0][0] for row in Corpus(coded)]
    assert run_corpus(request(coded, tmp_path / "latents", Making("latents", str(tiny_model), {"level": 3}))).good
    rows = Corpus(tmp_path / "latents")
    for row, wave in zip(rows, waves, strict=True):
        np.testing.assert_array_equal(tiny.from_latents(rows.frames(row)), wave)
    mean = Making("features", str(tiny_model), MEAN.options)
    assert run_corpus(request(coded, tmp_path / "mean", mean)).good
    for row, wave in zip(Corpus(tmp_path / "mean"), waves, strict=True):
        np.testing.assert_array_equal(row["mfcc"], features.extract(wave, RATE_HZ, "mfcc", "mean"))


def test_files_that_are_damaged_of_two_channels_or_of_another_model(here, tmp_path, waves, tiny_model):
    tiny, out, wave = codec_of(str(tiny_model)), tmp_path / "out", np.concatenate(waves)
    whole = tiny.encode(wave, RATE_HZ, quality=50)
    files = {
        "a": whole,
        "b": whole[:-20],
        "c": tiny.encode(np.stack([wave, wave[::-1]]), RATE_HZ),
        "d": codec_of("speech-16k").encode(waves[9], RATE_HZ),
        "e": b"no file",
    }
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / f"in/{name}.nacre").write_bytes(data)
    assert not run_corpus(request(tmp_path / "in", out, Making("tokens", str(tiny_model), {"level": 3}))).good
    assert [row["key"] for row in Corpus(out)] == ["a.nacre", "b.nacre", "c.nacre"]
    told = {row["key"]: (row["status"], row["error"]) for row in errors(out)}
    assert told.keys() == {"b.nacre", "d.nacre", "e.nacre"}
    assert told["b.nacre"][0] == "incomplete"
    assert "tokens of another model, speech-16k" in told["d.nacre"][1]
    assert Corpus(out)[2]["samples"] == len(wave)
    with pytest.raises(UsageError, match=r"holds tokens, from which nothing else is made"):
        open_source(str(out), Wanted())


# --- training


@pytest.mark.parametrize("kind", SOURCES)
def test_training_reads_every_source(kind, folder, tmp_path):
    pytest.importorskip("torch")
    from nacre.corpus.training import training_data
    from nacre.train.recordings import load_corpus

    data = training_data(SOURCES[kind](folder, tmp_path))
    corpus, files = (load_corpus(each, tmp_path / "cache", RATE_HZ, quiet=True) for each in ([data], folder))
    assert (corpus.files, corpus.skipped, len(corpus.sources)) == (COUNT, [], 1)
    assert corpus.sources[0].stops.tolist() == np.cumsum([3000 + 111 * index for index in range(COUNT)]).tolist()
    np.testing.assert_array_equal(corpus.sources[0].samples, np.concatenate([each.samples for each in files.sources]))


def test_training_reads_what_was_encoded_and_tells_of_rows_that_it_cannot(here, labelled, tmp_path, tiny_model):
    pytest.importorskip("torch")
    from nacre.corpus.training import training_data
    from nacre.train.recordings import load_corpus

    making = encoding("speech-16k")  # a model that its files name by themselves
    assert run_corpus(request(labelled, tmp_path / "coded", making, to="tree")).good
    next((tmp_path / "coded").rglob("k3.nacre")).write_bytes(b"damaged")
    data = training_data(tmp_path / "coded")
    corpus = load_corpus([data], tmp_path / "cache", RATE_HZ, quiet=True)
    assert [f"{tmp_path}/coded, row 3, k3: " in line for line in corpus.skipped] == [True]
    row = Corpus(tmp_path / "coded")[4]
    wave = codec_of("speech-16k").decode(row["nacre"])[0][0]
    wanted = np.round((wave - wave.mean()) * 32767)
    first, last = corpus.sources[0].stops[[2, 3]]
    np.testing.assert_allclose(corpus.sources[0].samples[first:last], wanted, atol=1)
    (tmp_path / "empty").mkdir()
    assert training_data(tmp_path / "empty") == tmp_path / "empty"


# --- destinations


@pytest.mark.parametrize("to", shards.SUFFIXES)
def test_destinations_hold_the_files_of_encode(here, nacre, to, folder, tmp_path, tiny_model):
    assert run_corpus(request(folder, tmp_path / "out", encoding(tiny_model), to=to, shard_rows=4)).good
    rows = Corpus(tmp_path / "out")
    assert len(rows) == COUNT
    for row in rows:
        wave, rate_hz = audio.read(folder / row["key"])
        assert row["nacre"] == codec_of(str(tiny_model)).encode(wave, rate_hz, quality=50)
        assert row["rate_hz"] == rate_hz
        assert row["duration_s"] == wave.shape[1] / rate_hz
    assert nacre("corpus", "verify", "out").rc == 0
    path = tmp_path / "out" / rows.records[1].file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = nacre("corpus", "verify", "out")
    assert found.rc == 1
    assert "shard 1" in found.stderr
    path.unlink()
    with pytest.raises(StreamError):
        Corpus(tmp_path / "out")[5]
    assert run_corpus(request(folder, tmp_path / "out", encoding(tiny_model), to=to, shard_rows=4)).made_shards == 1
    assert nacre("corpus", "verify", "out").rc == 0


@pytest.mark.parametrize("to", ["parquet", "webdataset", "safetensors"])
def test_frames_come_back_as_they_went(here, to, folder, tmp_path):
    making = Making("features", "", {"kind": "logmel", "pool": None})
    assert run_corpus(request(folder, tmp_path / "out", making, to=to, shard_rows=4)).good
    rows = Corpus(tmp_path / "out", ["key", "logmel"])
    for index in (7, 0, 9, 3, -1):  # in any order
        wave = audio.read(folder / rows[index]["key"])[0]
        np.testing.assert_array_equal(rows[index]["logmel"], features.extract(wave, RATE_HZ, "logmel"))
    with pytest.raises(UsageError, match="no column other"):
        Corpus(tmp_path / "out", ["other"])


@pytest.mark.parametrize("to", ["parquet", "webdataset", "safetensors"])
def test_tokens_and_latents_give_the_sound_back(here, to, folder, tmp_path, tiny, tiny_model):
    for what in ("tokens", "latents"):
        making = Making(what, str(tiny_model), {"level": 2})
        assert run_corpus(request(folder, tmp_path / what, making, to=to, shard_rows=4)).good
        rows = pickle.loads(pickle.dumps(Corpus(tmp_path / what)))
        for row in rows:
            wave, rate_hz = audio.read(folder / row["key"])
            if what == "tokens":
                wanted = tiny.decode(tiny.encode(wave, rate_hz, level=2))[0][0]
                found = tiny.from_tokens(rows.frames(row))
            else:
                wanted, found = tiny.from_latents(tiny.latents(wave, rate_hz, 2)), tiny.from_latents(rows.frames(row))
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("dtype", "cells"),
    [
        ("string", ["a", None, "", "Zürich 語"]),
        ("bytes", [b"a", b"", b"\0\xff" * 9]),
        ("bool", [True, None, False] * 5),
        ("int64", [1, None, -(1 << 62)]),
        ("float64", [0.5, None, -1e300]),
        ("int16", [-3, 4]),
    ],
)
def test_columns_are_those_that_arrow_itself_makes(dtype, cells):
    column = Column("a", dtype)
    made, kind = shards._arrow_array(column, cells), shards._arrow_type(column)
    made.validate(full=True)
    assert made.equals(pa.array(cells, kind))
    assert made.null_count == cells.count(None)


def test_shards_are_written_without_pandas():
    code = (
        "import io, sys, numpy; from nacre.corpus.shards import writer_of; from nacre.corpus.columns import Column;"
        "columns = (Column('a', 'string'), Column('b', 'int8', (None, 2)));"
        "writer = writer_of('parquet', io.BytesIO(), columns, {}, '');"
        "writer.add({'a': 'x', 'b': numpy.ones((1, 2))}); writer.finish(); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tree_is_refused_for_what_is_no_file(folder, tmp_path):
    with pytest.raises(UsageError, match="--to tree"):
        run_corpus(request(folder, tmp_path / "out", to="tree"))


def test_tree_keeps_its_files_inside_and_apart(here, folder, tmp_path, tiny_model):
    names = ["../../a", "a/../b", "twice", "twice"]
    lines = [{"id": name, "audio": str(folder / "0/0.wav")} for name in names]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not run_corpus(request(tmp_path / "l.jsonl", tmp_path / "out", encoding(tiny_model), to="tree")).good
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.nacre"))
    assert made == ["files/_/_/a.nacre", "files/a/_/b.nacre", "files/twice.nacre"]
    assert [(row["row"], row["key"]) for row in errors(tmp_path / "out")] == [("3", "twice")]


# --- what is wrong with rows


def test_bad_rows_stand_in_the_table_and_not_in_the_way(here, nacre, folder, tmp_path, waves):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "none.wav").write_bytes(wav(waves[0][:0]))
    (tmp_path / "text.wav").write_text("words")
    audio.write(tmp_path / "cut.flac", np.resize(waves[9], (1, 30_000)), RATE_HZ)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:-2000])
    audio.write(tmp_path / "other.wav", waves[1][None], 44_100)  # another rate is no fault
    good = str(folder / "0/0.wav")
    lines = [good, "missing.wav", "empty.wav", "none.wav", good, "text.wav", "cut.flac", None, 5, "other.wav", good]
    rows = [json.dumps({"audio": name, "label": "a"}) for name in lines]
    rows[4] = rows[4].replace('"a"', "7")  # of another type than before
    rows.insert(5, "{no json")
    (tmp_path / "l.jsonl").write_text("\n".join(rows) + "\n")
    found = nacre("corpus", "features", "l.jsonl", "-o", "out", "--shard-rows", 5, "--keep", "label", "--pool", "mean")
    assert found.rc == 1
    assert "shard 1, row 5" in found.stderr
    said = {int(row["row"]): row for row in errors(tmp_path / "out")}
    assert sorted(said) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert {row["shard"] for row in said.values()} == {"0", "1"}
    for row, words in {1: "No such file", 2: "is empty", 3: "no samples", 4: "column label", 5: "no JSON"}.items():
        assert words in said[row]["error"], said[row]
    assert "not a sound file" in said[6]["error"]
    assert said[7]["status"] == "incomplete"
    assert [row["row"] for row in Corpus(tmp_path / "out")] == [0, 7, 10, 11]


def test_damaged_tars_and_tables_end_in_a_row_of_the_table(here, folder, tmp_path):
    source = make_tar(folder, tmp_path)
    data = (source / "0.tar").read_bytes()
    (source / "0.tar").write_bytes(data[: len(data) // 2])
    assert not run_corpus(request(source, tmp_path / "out")).good
    assert 0 < len(Corpus(tmp_path / "out")) < COUNT
    assert "0.tar" in errors(tmp_path / "out")[-1]["error"]
    (tmp_path / "tables").mkdir()
    make_parquet("bytes")(folder, tmp_path / "tables")
    (tmp_path / "tables/b.parquet").write_bytes((tmp_path / "tables/a.parquet").read_bytes()[:-100])
    assert not run_corpus(request(tmp_path / "tables", tmp_path / "out2")).good
    assert len(Corpus(tmp_path / "out2")) == COUNT
    assert "b.parquet" in errors(tmp_path / "out2")[0]["error"]


def test_recordings_that_are_too_long_are_refused(here, folder, tmp_path):
    making = Making("features", "", {"kind": "mfcc", "pool": "mean"}, longest_s=0.2)
    assert not run_corpus(request(folder, tmp_path / "out", making)).good
    assert 0 < len(Corpus(tmp_path / "out")) < COUNT
    assert all("--longest" in row["error"] for row in errors(tmp_path / "out"))


# --- what is wrong with destinations


def test_another_destination_is_refused(here, folder, tmp_path, tiny_model, both_model):
    assert run_corpus(request(folder, tmp_path / "out", encoding(tiny_model))).good
    with pytest.raises(UsageError, match="with quality 50, and this asks for 60"):
        run_corpus(request(folder, tmp_path / "out", encoding(tiny_model, quality=60)))
    with pytest.raises(UsageError, match="with model tiny, and this asks for both"):
        run_corpus(request(folder, tmp_path / "out", encoding(both_model)))
    with pytest.raises(UsageError, match="with to parquet, and this asks for tree"):
        run_corpus(request(folder, tmp_path / "out", encoding(tiny_model), to="tree"))
    source = make_csv(folder, tmp_path)
    with pytest.raises(UsageError, match=r"another schema, which differs in label"):
        run_corpus(request(source, tmp_path / "out", encoding(tiny_model), Wanted(keep=("label",))))
    with pytest.raises(UsageError, match="other files"):
        run_corpus(request(source, folder))


def test_a_source_that_changed_is_refused_and_made_again_by_force(here, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert run_corpus(request(copy, tmp_path / "out", shard_rows=4)).good
    (copy / "1/6.wav").unlink()
    with pytest.raises(UsageError, match="shard 1 has other recordings"):
        run_corpus(request(copy, tmp_path / "out", shard_rows=4))
    assert run_corpus(request(copy, tmp_path / "out", shard_rows=4, again=True)).made_shards == 2
    assert len(Corpus(tmp_path / "out")) == COUNT - 1
    for path in copy.glob("1/*.wav"):
        path.unlink()
    shutil.copytree(tmp_path / "out", tmp_path / "less")
    (copy / "0/5.wav").unlink()
    (copy / "0/4.wav").unlink()
    with pytest.raises(UsageError, match="2 shards more than the source"):
        run_corpus(request(copy, tmp_path / "less", shard_rows=4))
    for name in ("0/4.wav", "0/5.wav"):
        shutil.copy(folder / name, copy / name)
    assert run_corpus(request(copy, tmp_path / "out", shard_rows=4, again=True)).shards == 2
    assert len(list((tmp_path / "out").glob("shard-*"))) == 2


def test_two_runs_at_once_are_refused(here, folder, tmp_path):
    pytest.importorskip("fcntl")
    with Manifest(str(tmp_path / "out")).held(), pytest.raises(NacreError, match="another run"):
        run_corpus(request(folder, tmp_path / "out"))


def test_no_room_loses_the_shard_and_says_so(here, folder, tmp_path, monkeypatch):
    full = work.writer_of

    def writer(to, file, *more):
        if "shard-000001" in file.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return full(to, file, *more)

    monkeypatch.setattr(work, "writer_of", writer)
    summary = run_corpus(request(folder, tmp_path / "out", shard_rows=4))
    assert (summary.lost, summary.shards, summary.rows) == (1, 2, 6)
    assert "No space left" in errors(tmp_path / "out")[0]["error"]
    assert not list((tmp_path / "out").glob(".*.part"))
    monkeypatch.setattr(work, "writer_of", full)
    summary = run_corpus(request(folder, tmp_path / "out", shard_rows=4))
    assert summary.good
    assert (summary.made_shards, summary.rows) == (1, COUNT)


def test_no_ray_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"nacre\[ray\]"):
        run_corpus(request(folder, tmp_path / "out", engine="ray"))


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_a_ray_that_does_not_start_is_said(folder, tmp_path, monkeypatch, address):
    def init(**settings):
        assert settings["address"] == (address or "local")
        raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    with pytest.raises(UsageError, match="timed out during startup"):
        run_corpus(request(folder, tmp_path / "out", engine="ray", address=address))


# --- stops and starts


def test_a_stopped_run_goes_on(here, folder, tmp_path):
    assert run_corpus(request(folder, tmp_path / "whole", shard_rows=2)).good
    here.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run_corpus(request(folder, tmp_path / "out", shard_rows=2))
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*")}
    assert len(done) == 2
    with open(tmp_path / "out/manifest.jsonl", "a") as file:
        file.write('{"shard": 4, "file"')  # as a kill may leave it
    (tmp_path / "out/.shard-000004.parquet.0123.part").write_text("half a file")
    here.stop_after = None
    assert run_corpus(request(folder, tmp_path / "out", shard_rows=2)).made_shards == 3
    assert all(path.stat().st_mtime_ns == then for path, then in done.items())
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert not list((tmp_path / "out").glob(".*.part"))
    assert run_corpus(request(folder, tmp_path / "out", shard_rows=2)).made_shards == 0


def test_a_row_that_ends_its_process_is_left_out(here, folder, tmp_path):
    here.deaths = ((1, 5),)
    summary = run_corpus(request(folder, tmp_path / "out", shard_rows=4))
    assert (summary.failed, summary.rows, summary.lost) == (1, COUNT - 1, 0)
    (row,) = errors(tmp_path / "out")
    assert (row["shard"], row["row"]) == ("1", "5")
    assert "memory" in row["error"]
    here.deaths = ()
    assert run_corpus(request(folder, tmp_path / "out", shard_rows=4)).made_shards == 0
    assert run_corpus(request(folder, tmp_path / "out", shard_rows=4, retry=True)).good


# --- other programs


def test_torch_reads_every_row_once(here, folder, tmp_path):
    torch = pytest.importorskip("torch")
    from nacre.corpus.readers import ShardDataset, ShardStream, pad_batch

    making = Making("features", "", {"kind": "mfcc", "pool": None})
    assert run_corpus(request(folder, tmp_path / "out", making, shard_rows=3)).good
    for world in (1, 2, 3, 7):  # with fewer and more parts than the four shards
        parts = [
            [row["row"] for row in ShardStream(tmp_path / "out", shuffle=5, rank=rank, world=world)]
            for rank in range(world)
        ]
        assert sorted(row for part in parts for row in part) == list(range(COUNT))
        equal = [len(list(ShardStream(tmp_path / "out", equal=True, rank=rank, world=world))) for rank in range(world)]
        assert len(set(equal)) == 1
        assert equal[0] > 0
    stream = ShardStream(tmp_path / "out", shuffle=5)
    first = [row["row"] for row in stream]
    assert first == [row["row"] for row in stream]
    stream.set_epoch(1)
    assert first != [row["row"] for row in stream]
    loader = torch.utils.data.DataLoader(
        ShardDataset(tmp_path / "out", ["key", "mfcc", "samples"]), batch_size=4, collate_fn=pad_batch, num_workers=2
    )
    batches = list(loader)
    assert [len(batch["key"]) for batch in batches] == [4, 4, 2]
    for batch in batches:
        assert batch["mfcc"].shape[:2] == batch["mfcc_mask"].shape
        assert (batch["mfcc_mask"].sum(1) == batch["mfcc_lengths"]).all()
        assert (batch["mfcc"][~batch["mfcc_mask"]] == 0).all()
        assert batch["samples"].dtype == torch.int64


def test_hugging_face_reads_the_shards(here, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    making = Making("features", "", {"kind": "mfcc", "pool": None})
    assert run_corpus(request(folder, tmp_path / "out", making, shard_rows=3)).good
    files, cache = str(tmp_path / "out/*.parquet"), str(tmp_path / "cache")
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache).with_format("numpy")
    rows = Corpus(tmp_path / "out")
    assert len(found) == COUNT
    np.testing.assert_array_equal(found[4]["mfcc"], rows[4]["mfcc"])
