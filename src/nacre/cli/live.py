"""Commands of live speech: pipes, calls over UDP, and calls over a simulated line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nacre.batch.messages import tell, warn
from nacre.cli.app import Force, Model, Quiet, app
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import NacreError, UsageError

if TYPE_CHECKING:
    from nacre.codec.codec import Codec
    from nacre.core.types import Array
    from nacre.link.line import Call, Line

Bitrate = Annotated[float, typer.Option(help="Bitrate of the payloads in kb/s, copies included.")]
Frames = Annotated[int, typer.Option(min=1, max=3, help="Frames of 20 ms in a packet.")]
Expect = Annotated[
    float, typer.Option(help="Packet loss to expect, in %; it decides how many key frames and copies are sent.")
]
Reach = Annotated[
    float | None, typer.Option(help="How far back copies reach, 40 to 1000 ms. Default: as far as the losses need.")
]
Copies = Annotated[bool, typer.Option(help="Send coarse copies of earlier frames when packets are lost.")]
Denoise = Annotated[bool, typer.Option(help="Remove noise, at 10 ms more delay. The model needs a denoiser.")]
Loss = Annotated[float, typer.Option(help="Share of packets that the line loses, in %.")]
Burst = Annotated[float, typer.Option(min=1, help="Mean number of packets lost in a row.")]
Jitter = Annotated[float, typer.Option(min=0, help="Mean of the random part of the delay, in ms.")]
Seed = Annotated[int, typer.Option(help="Random seed of losses and jitter.")]
Depth = Annotated[float | None, typer.Option(help="How long packets wait, in ms. Default: adapted to the line.")]
Rate = Annotated[int | None, typer.Option(help="Sample rate in Hz. Default: the model's.")]
Figure = Annotated[
    str | None,
    typer.Option(metavar="OUT.png", help="Draw quality at 0 to 30 % loss. Needs nacre\\[evaluate] and nacre\\[plot]."),
]
Source = Annotated[
    str, typer.Argument(metavar="IN", help="Sound file; '-' is standard input, raw 16-bit samples at --rate or a wav.")
]

stream = typer.Typer(
    help="Encode and decode live speech through pipes: raw 16-bit samples or a growing wav, and framed packets.",
    no_args_is_help=True,
)
app.add_typer(stream, name="stream")


@stream.command("encode")
def stream_encode(
    bitrate: Bitrate = 6.0,
    frames: Frames = 1,
    expect_loss: Expect = 0.0,
    reach: Reach = None,
    copies: Copies = True,
    denoise: Denoise = False,
    rate: Rate = None,
    model: Model = DEFAULT_MODEL,
    quiet: Quiet = False,
) -> None:
    """Encode live speech from standard input, raw 16-bit mono or wav, to packets on standard output.

    arecord -t raw -f S16_LE -r 16000 | nacre stream encode | nacre stream decode | aplay -t raw -f S16_LE -r 16000
    Each packet leaves 20 ms after its sound arrived.
    """
    from nacre.codec.codec import load
    from nacre.codec.live import LiveSettings
    from nacre.io.stdio import standard_input, standard_output
    from nacre.link.pipes import encode_pipe

    settings = LiveSettings(bitrate, frames, expect_loss / 100, reach, copies, denoise=denoise)
    codec = load(model)
    rate_kbps = encode_pipe(codec, standard_input(), standard_output(), _rate(rate, codec), settings)
    if not quiet:
        tell(f"{rate_kbps:.2f} kb/s of payloads")


@stream.command("decode")
def stream_decode(
    rate: Rate = None,
    depth: Annotated[float, typer.Option(help="How long to wait for copies of missing packets, in ms.")] = 0.0,
    wav: Annotated[bool, typer.Option("--wav", help="Write a wav of unknown length instead of raw samples.")] = False,
    model: Model = DEFAULT_MODEL,
    quiet: Quiet = False,
) -> None:
    """Decode packets from standard input to 16-bit mono samples on standard output, concealing missing ones.

    nacre stream encode < talk.wav | nacre stream decode --wav > again.wav
    """
    from nacre.codec.codec import load
    from nacre.io.stdio import standard_input, standard_output
    from nacre.link.pipes import decode_pipe

    codec = load(model)
    stats = decode_pipe(codec, standard_input(), standard_output(), _rate(rate, codec), depth, wav)
    if stats.foreign and not stats.received:
        warn(f"none of the {stats.foreign} packets is from model {model}; give the sender's model with --model")
        raise typer.Exit(1)
    if not quiet:
        frames = f"{stats.restored} frames restored from copies, {stats.concealed} concealed"
        tell(f"{stats.received} packets received, {stats.lost} lost, {frames}")


@app.command()
def send(
    to: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where `nacre receive` listens.")],
    source: Source,
    bitrate: Bitrate = 6.0,
    frames: Frames = 1,
    expect_loss: Expect = 0.0,
    reach: Reach = None,
    copies: Copies = True,
    denoise: Denoise = False,
    rate: Rate = None,
    loss: Loss = 0.0,
    burst: Burst = 1.0,
    jitter: Jitter = 0.0,
    seed: Seed = 0,
    model: Model = DEFAULT_MODEL,
    quiet: Quiet = False,
) -> None:
    """Send speech in real time to `nacre receive` over UDP.

    nacre send 127.0.0.1:5004 talk.wav --loss 10
    For a test, --loss, --burst and --jitter make the line worse.
    """
    from asyncio import run

    from nacre.codec.codec import load
    from nacre.codec.live import LiveSettings
    from nacre.io.audio import AudioReader, mono_blocks
    from nacre.io.stdio import standard_input
    from nacre.link import network
    from nacre.link.pipes import PcmReader

    settings = LiveSettings(bitrate, frames, expect_loss / 100, reach, copies, denoise=denoise)
    line, where, codec = _line(loss, burst, 0.0, jitter, 0.0, seed), network.address_of(to), load(model)

    def go(pieces: Iterator[Array], rate_hz: int) -> None:
        run(network.send(codec, pieces, rate_hz, where, settings, line, _telling(quiet)))

    if source == "-":
        reader = PcmReader(standard_input(), _rate(rate, codec))
        go(reader.pieces(), reader.rate_hz)
        return
    with AudioReader(source) as sound:
        go(mono_blocks(sound, codec.config.rate_hz), codec.config.rate_hz)


@app.command()
def receive(
    output: Annotated[str, typer.Option("--output", "-o", help="Sound file; '-' is a wav on standard output.")],
    at: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:5004",
    rate: Rate = None,
    depth: Depth = None,
    idle: Annotated[float, typer.Option(min=0.1, help="Stop after this many seconds without a packet.")] = 5.0,
    seconds: Annotated[
        float | None, typer.Option(help="Listen for at most this many seconds. Default: no limit.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Receive a call from `nacre send` and write its sound.

    nacre receive -o received.wav --listen 0.0.0.0:5004
    It prints statistics once a second and reports losses to the sender.
    """
    from asyncio import run

    from nacre.codec.codec import load
    from nacre.io.audio import AudioWriter
    from nacre.link import network

    codec, where = load(model), network.address_of(at)
    rate = _rate(rate, codec)
    with AudioWriter(output, rate, 1, overwrite=force) as file:
        write, say = (lambda wave: file.write(wave[None])), _telling(quiet)
        work = network.receive(codec, where, rate, write, say, depth_ms=depth, idle_s=idle, seconds=seconds)
        decoder = run(work)
    stats = decoder.stats
    if not quiet:
        counts = f"{stats.received} packets received, {stats.lost} lost, {stats.late} late"
        frames = f"{stats.played} frames as sent, {stats.restored} restored from copies, {stats.concealed} concealed"
        tell(f"{counts}; {frames}")
    if not stats.played and not stats.restored:
        warn(f"no speech arrived at {at}; {stats.foreign} packets were from another model than {model}")
        raise typer.Exit(1)


@app.command()
def simulate(
    source: Annotated[str, typer.Argument(metavar="IN", help="Sound file.")],
    output: Annotated[str, typer.Option("--output", "-o", help="File for the sound at the other end.")],
    loss: Loss = 10.0,
    burst: Burst = 1.0,
    delay: Annotated[float, typer.Option(min=0, help="Fixed delay of the line, in ms.")] = 50.0,
    jitter: Jitter = 0.0,
    drift: Annotated[float, typer.Option(help="How much faster the receiver's clock runs, in ppm.")] = 0.0,
    seed: Seed = 0,
    bitrate: Bitrate = 6.0,
    frames: Frames = 1,
    expect_loss: Annotated[float | None, typer.Option(help="Expected loss in %. Default: as --loss.")] = None,
    reach: Reach = None,
    copies: Copies = True,
    depth: Depth = None,
    figure: Figure = None,
    model: Model = DEFAULT_MODEL,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Simulate a call over a bad line; write the sound at the other end and print statistics.

    nacre simulate talk.wav -o received.wav --loss 20 --burst 3 --jitter 15 --figure curve.png
    """
    from nacre.codec.codec import load
    from nacre.codec.live import LiveSettings
    from nacre.io import audio
    from nacre.link.line import call

    line = _line(loss, burst, delay, jitter, drift, seed)
    expected = loss if expect_loss is None else expect_loss
    reach = line.reach_ms if reach is None else reach
    settings = LiveSettings(bitrate, frames, expected / 100, reach, copies)
    codec, (wave, rate_hz) = load(model), audio.read(source)
    mono = wave.mean(0)
    made = call(codec, mono, rate_hz, settings, line, depth)
    audio.write(output, made.wave[None], rate_hz, overwrite=force)
    if figure is not None:
        from nacre.evaluate.loss import draw

        draw(codec, mono, rate_hz, settings, line, Path(figure), force)
    if not quiet:
        _print_call(made, delay)


def _print_call(call: Call, delay_ms: float) -> None:
    """Statistics of a call over a line of this delay."""
    tell(f"{call.sent} packets sent, {call.arrived} arrived, {call.payload_kbps:.2f} kb/s of payloads")
    stats = asdict(call.stats)
    names = ("played", "restored", "concealed", "late", "inserted", "dropped")
    tell("frames: " + ", ".join(f"{stats[name]} {name}" for name in names))
    parts = f"{delay_ms:g} ms line, {call.depth_ms:.0f} ms jitter buffer, the rest codec"
    tell(f"end-to-end delay {call.latency_ms:.0f} ms: {parts}")


@app.command()
def echo(
    at: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where to serve.")] = "127.0.0.1:8000",
    model: Model = DEFAULT_MODEL,
    quiet: Quiet = False,
) -> None:
    """Serve a page that plays your voice back as it sounds at the other end of a bad line. Needs nacre\\[web].

    nacre echo --listen 127.0.0.1:8000
    Browsers allow the microphone only on pages of this machine or over https.
    """
    from asyncio import run

    from nacre.codec.codec import load
    from nacre.link.network import address_of

    try:
        from nacre.link import web
    except ModuleNotFoundError as error:
        lacks = f"echo needs the package {error.name}, which is not installed"
        raise NacreError(f"{lacks}; run pip install 'nacre[web]'") from error
    try:
        run(web.serve(load(model), *address_of(at), _telling(quiet)))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error  # asyncio puts a sentence of its own around it
        raise NacreError(f"{at} cannot be used ({why}); listen at another address") from error


def _rate(rate_hz: int | None, codec: Codec) -> int:
    return codec.config.rate_hz if rate_hz is None else rate_hz


def _line(loss: float, burst: float, delay: float, jitter: float, drift: float, seed: int) -> Line:
    from nacre.link.line import Line

    if not 0 <= loss <= 100:
        raise UsageError(f"--loss {loss:g} is not a share of packets; give 0 to 100 %")
    return Line(loss / 100, burst, delay, jitter, drift, seed)


def _telling(quiet: bool) -> Callable[[str], None]:
    return (lambda text: None) if quiet else tell
