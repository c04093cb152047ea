"""`nacre corpus`: time beside that of the coding alone, memory over many files, and what kills leave behind.

python bench/corpus.py speed
python bench/corpus.py memory
python bench/corpus.py training
python bench/corpus.py kills [--engine ray]
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import nacre
from nacre import recipes
from nacre.corpus.manifest import check, read_records
from nacre.corpus.reading import Corpus
from nacre.io.audio import AudioReader, read, write

COMMAND = [sys.executable, "-m", "nacre", "corpus", "encode"]
RATE_HZ = 16_000
app = typer.Typer(help=__doc__)
ModelName = Annotated[str, typer.Option(help="bundled model or a model folder")]


def manifest(folder: Path, files: int, rows: int, seconds: float) -> Path:
    """A CSV of `rows` recordings in `files` files of up to `seconds` of the bundled speech."""
    clips = sorted((Path(nacre.__file__).parent / "clips").glob("*.flac"))
    speech, random = np.concatenate([read(clip)[0][0] for clip in clips]), np.random.default_rng(0)
    for index in range(files):
        size = round(RATE_HZ * seconds * random.uniform(0.5, 1))
        at = int(random.integers(len(speech) - size))
        write(folder / f"{index}.flac", speech[None, at : at + size], RATE_HZ, overwrite=True)
    with open(folder / "list.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "audio"])
        table.writerows([row, f"{row % files}.flac"] for row in range(rows))
    return folder / "list.csv"


@app.command()
def alone(source: Path, processes: int = 1, model: ModelName = "speech-16k") -> None:
    """Read and encode every recording of a list, side by side, writing nothing; what `speed` compares with."""
    with open(source, newline="") as file:
        paths = [source.parent / row["audio"] for row in csv.DictReader(file)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(code, [(paths[part::processes], model) for part in range(processes)]))
    print(json.dumps({"cpu_s": sum(cpu_s for cpu_s, _ in parts), "sound_s": sum(sound_s for _, sound_s in parts)}))


def code(work: tuple[list[Path], str]) -> tuple[float, float]:
    """(CPU seconds, seconds of sound) of one process, from when its networks are open."""
    codec, sound_s = nacre.load(work[1]), 0.0
    started = time.process_time()
    for path in work[0]:
        with AudioReader(path) as reader:
            stream = codec.encoder(reader.rate_hz, reader.channels)
            for block in reader.blocks(reader.rate_hz):
                stream.push(block)
            stream.flush()
            sound_s += stream.samples / reader.rate_hz
    return time.process_time() - started, sound_s


def timed(command: list[str]) -> tuple[str, float, float]:
    """(what it printed, wall seconds, CPU seconds of it and of its processes)."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout, wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@app.command()
def speed(
    files: int = 240,
    seconds: float = 8,
    shard_rows: int = 20,
    repeats: int = 5,
    engines: Annotated[str, typer.Option(help="each with its number of workers")] = "local1,local2,ray2,ray4",
    model: ModelName = "speech-16k",
) -> None:
    """The same recordings by the codec alone in as many processes, then by processes or a local Ray, time and again."""
    with tempfile.TemporaryDirectory() as name:
        source = manifest(Path(name), files, files, seconds)
        rows: dict[str, list[dict[str, float]]] = {named: [] for named in engines.split(",")}
        for turn in range(repeats):
            for named, measured in rows.items():
                engine, jobs = named[:-1], named[-1]
                row: dict[str, float] = {}
                given = [sys.executable, __file__, "alone", str(source), "--processes", jobs, "--model", model]
                output, row["alone wall"], row["alone whole CPU"] = timed(given)
                row |= {"alone CPU": json.loads(output)["cpu_s"], "sound": json.loads(output)["sound_s"]}
                target = Path(name, f"{named}.{turn}")
                options = ["--engine", engine, "-j", jobs, "--shard-rows", str(shard_rows), "-m", model, "-q"]
                _, row["wall"], row["whole CPU"] = timed([*COMMAND, str(source), "-o", str(target), *options])
                run = json.loads((target / "runs.jsonl").read_text().splitlines()[-1])
                row |= {"CPU": run["cpu_s"], "peak MB": run["peak_mb"]}
                row["more CPU %"] = 100 * (row["CPU"] / row["alone CPU"] - 1)
                row["more wall %"] = 100 * (row["wall"] / row["alone wall"] - 1)
                measured.append(row)
                middle = {key: round(float(np.median([row[key] for row in measured])), 2) for key in row}
                print(f"{named}, median of {turn + 1}: {middle}", flush=True)


@app.command()
def memory(rows: int = 20_000, files: int = 200, seconds: float = 0.4, model: ModelName = "speech-16k") -> None:
    """Resident MB of driver and worker in each quarter of a run over many short files."""
    with tempfile.TemporaryDirectory() as name:
        source = manifest(Path(name), files, rows, seconds)
        command = [*COMMAND, str(source), "-o", f"{name}/out", "-j", "1", "--shard-rows", "500", "-m", model, "-q"]
        seen: list[tuple[float, float]] = []
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                workers = [resident_mb(pid) for pid in children(process.pid) if is_worker(pid)]
                if workers:
                    seen.append((resident_mb(process.pid), max(workers)))
                time.sleep(0.5)
        if process.returncode:
            raise SystemExit(process.returncode)
        for quarter, part in enumerate(np.array_split(np.array(seen), 4), 1):
            driver, worker = part.max(0)
            print(f"quarter {quarter}: driver {driver:.0f} MB, worker {worker:.0f} MB at most")
        print(f"{len(Corpus(f'{name}/out'))} rows in {len(read_records(f'{name}/out'))} shards")


@app.command()
def training(
    rows: Annotated[str, typer.Option(help="recordings in all, of several runs")] = "500,2000,8000",
    files: int = 100,
    seconds: float = 8,
) -> None:
    """Memory of `nacre train` for recordings out of a table: while they are decoded, and while batches are drawn."""
    with tempfile.TemporaryDirectory() as name:
        for count in map(int, rows.split(",")):
            source = manifest(Path(name), files, count, seconds)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                hours, *megabytes = pool.submit(decode_and_draw, source, Path(name, "cache")).result()
            before, decoded, drawn = (f"{value:.0f} MB" for value in megabytes)
            print(f"{count} recordings, {hours:.2f} h: {before} before, {decoded} decoded, {drawn} with batches drawn")


def decode_and_draw(source: Path, cache: Path) -> tuple[float, float, float, float]:
    """Hours of sound, and MB of this process's own: before, when all is decoded, after drawing 100 batches of 32."""
    from nacre.corpus.training import training_data
    from nacre.train.recipe import load_recipe
    from nacre.train.recordings import load_corpus
    from nacre.train.sampler import Sampler

    recipe = load_recipe(recipes.find("tiny"))
    before = own_mb()
    corpus = load_corpus([training_data(source)], cache, RATE_HZ, quiet=True)
    decoded = own_mb()
    sampler = Sampler(corpus, recipe.codec, recipe.degrade, None, recipe.data.balance)
    for step in range(100):
        sampler.draw(32, RATE_HZ, (0, step))
    return corpus.seconds / 3600, before, decoded, own_mb()


def own_mb() -> float:
    """Memory of this process without files that are mapped into it, which the system may drop."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


@app.command()
def kills(
    kills: Annotated[int, typer.Option(help="of each kind")] = 5,
    engine: Annotated[str, typer.Option(help="local or ray")] = "local",
    kinds: Annotated[str, typer.Option(help="worker, driver and, of ray, node")] = "worker,driver",
    files: int = 60,
    most_s: Annotated[float, typer.Option(help="longest work before a kill")] = 5,
    seed: int = 0,
    model: ModelName = "speech-16k",
) -> None:
    """Kill workers, drivers and, of Ray, nodes at random moments, go on each time, and compare with an unbroken run."""
    random, bad = np.random.default_rng(seed), 0
    with tempfile.TemporaryDirectory() as name:
        source = manifest(Path(name), files, files, 4)
        options = ["--shard-rows", "5", "-j", "2", "-m", model]
        subprocess.run([*COMMAND, str(source), "-o", f"{name}/whole", *options], check=True)
        wanted = {record.file: record.sha256 for record in read_records(f"{name}/whole")}
        with cluster(engine) as (more, workers_of, kill_node):
            for kind in kinds.split(","):
                target, started = Path(name, kind), time.perf_counter()
                command = [*COMMAND, str(source), "-o", str(target), *options, *more]
                waits = random.uniform(0, most_s, kills).tolist()
                said = []
                for part in [[wait_s] for wait_s in waits] if kind == "driver" else [waits]:
                    said += broken_run(kind, command, target, part, random, workers_of, kill_node)
                    said.append(f"{len(read_records(target))} shards")
                code = subprocess.run(command, check=False, stderr=subprocess.PIPE).returncode
                wrong = faults(target, wanted, files) + [f"exit code {code}"] * (code != 0)
                bad += bool(wrong)
                took_s = time.perf_counter() - started
                print(f"{engine} {kind}: {', '.join(said)}; faults: {wrong or 'none'} ({took_s:.0f} s)", flush=True)
    sys.exit(bad > 0)


def broken_run(
    kind: str,
    command: list[str],
    target: Path,
    waits: list[float],
    random: np.random.Generator,
    workers_of: Callable[[int], list[int]],
    kill_node: Callable[[], None] | None,
) -> list[str]:
    """Start a run and strike it as often as there are `waits`, in seconds of work; -> when, and how it ended."""
    said = []
    for old in target.glob(".*.row"):
        old.unlink()
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        for wait_s in waits:
            while process.poll() is None and not any(target.glob(".*.row")):  # a recording is being worked on
                time.sleep(0.02)
            with suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
            if process.poll() is not None:
                break
            if kind == "driver":
                process.kill()
            elif kind == "node" and kill_node:
                kill_node()
            elif workers := workers_of(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(int(random.choice(workers)), signal.SIGKILL)
            said.append(f"{wait_s:.1f} s")
        process.communicate()
    return [*said, f"exit {process.returncode}"]


def faults(target: Path, wanted: dict[str, str], count: int) -> list[str]:
    """What is wrong with a corpus that should be as the unbroken one."""
    wrong = [f"shard {record.shard} {word}" for record, word in check(target) if word]
    keys = [row["key"] for row in Corpus(target, ["key"])]
    wrong += ["rows missing"] * (len(set(keys)) < count) + ["rows twice"] * (len(keys) > len(set(keys)))
    wrong += ["other bytes"] * ({record.file: record.sha256 for record in read_records(target)} != wanted)
    wrong += ["failures"] * any(record.failures for record in read_records(target))
    return wrong + ["half a file"] * bool(list(target.glob(".*.part")))


@contextmanager
def cluster(engine: str) -> Iterator[tuple[list[str], Callable[[int], list[int]], Callable[[], None] | None]]:
    """(options of the command, its workers' ids, how to kill a node) of an engine; of Ray two nodes of a core each."""
    if engine == "local":
        yield [], lambda driver: [pid for pid in children(driver) if is_worker(pid)], None
        return
    patience = {"raylet_start_wait_time_s": "600", "health_check_timeout_ms": "60000", "worker_niceness": "0"}
    os.environ.update({f"RAY_{name}": value for name, value in patience.items()} | {"RAY_USAGE_STATS_ENABLED": "0"})
    from ray.cluster_utils import Cluster

    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=small | {"num_cpus": 0, "include_dashboard": False})

    def another(tries: int = 5) -> Any:
        for _ in range(tries):
            with suppress(Exception):  # Ray gives a node thirty seconds to start, and says no more than that
                return cluster.add_node(**small)
        raise SystemExit("no node of Ray starts here")

    nodes = [another() for _ in range(2)]

    def raylets() -> list[int]:
        return [info.process.pid for node in nodes for info in node.all_processes.get("raylet", [])]

    def workers(_: int) -> list[int]:
        return [pid for raylet in raylets() for pid in children(raylet) if "ray::make_shard" in command_of(pid)]

    def kill_node() -> None:
        cluster.remove_node(nodes.pop(0), allow_graceful=False)
        nodes.append(another())

    try:
        yield ["--engine", "ray", "--address", cluster.address], workers, kill_node
    finally:
        cluster.shutdown()


def children(parent: int) -> list[int]:
    """Ids of the processes that one has started."""
    ids = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                ids.append(int(path.name))
    return ids


def command_of(pid: int) -> str:
    """The command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def is_worker(pid: int) -> bool:
    """Whether a process is one of the local engine's."""
    return "spawn_main" in command_of(pid)


def resident_mb(pid: int) -> float:
    """Resident memory of a process, 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    except OSError:
        return 0.0


if __name__ == "__main__":
    app()
