"""The call in the browser: the echo, the server where its extra is installed, and the page where Chromium is."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import asynccontextmanager

import numpy as np
import pytest
import soundfile as sf

from nacre.core.errors import UsageError
from nacre.link.echo import Echo, EchoSettings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
FLAGS += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--remote-debugging-port=0"]
CALL = """(async () => {
  const text = name => document.getElementById(name).textContent;
  const until = async (done) => { while (!done()) await new Promise(soon => setTimeout(soon, 50)); };
  document.getElementById("start").click();
  await until(() => text("rate") !== "-" && parseInt(text("spoken-db")) > -60 && parseInt(text("heard-db")) > -60);
  const slider = document.getElementById("loss");
  slider.value = 30;
  slider.dispatchEvent(new Event("change"));
  await until(() => parseFloat(text("lost")) > 0);
  const said = text("state");
  document.getElementById("start").click();
  return [said, text("state")];
})()"""


def settings(codec, **options) -> EchoSettings:
    return EchoSettings(**{"rate_hz": 48_000, "kbps": float(codec.bundle.rates_kbps[1])} | options)


def spoken(echo: Echo, seconds: float, start_s: float = 0.0) -> tuple[np.ndarray, list[dict]]:
    """What comes back of noise in pieces of 20 ms, and the figures."""
    rng, waves, told, piece = np.random.default_rng(1), [], [], echo.settings.rate_hz // 50
    for tick in range(round(50 * seconds)):
        now = start_s + 0.02 * (tick + 1)
        echo.speak(rng.normal(0, 0.1, piece).astype(np.float32), now)
        waves.append(echo.hear(now))
        if found := echo.figures(now):
            told.append(found)
    return np.concatenate(waves), told


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_a_voice_comes_back_after_the_delay_of_the_line(both, rate_hz):
    wave, told = spoken(Echo(both, settings(both, rate_hz=rate_hz, delay_ms=100), 0.0), 2)
    assert 1.6 * rate_hz < len(wave) <= 1.95 * rate_hz
    assert np.abs(wave).max() > 0
    assert [found["lost"] for found in told] == [0, 0]
    assert told[-1]["delay_ms"] >= 160


def test_the_sender_learns_of_loss_and_sends_copies(both):
    _, told = spoken(Echo(both, settings(both, loss=20.0), 0.0), 4)
    assert told[-1]["lost"] > 20
    assert told[-1]["restored"] > 0
    assert not spoken(Echo(both, settings(both, loss=20.0, copies=False), 0.0), 4)[1][-1]["restored"]


def test_a_change_of_the_line_keeps_the_call_and_another_rate_starts_anew(both):
    echo = Echo(both, settings(both), 0.0)
    spoken(echo, 0.5)
    assert echo.change(settings(both, loss=5.0), 0.5) is echo
    assert echo.change(settings(both, rate_hz=44_100), 0.5) is not echo
    with pytest.raises(UsageError):
        echo.change(settings(both, loss=99.0, burst=2.0), 0.5)
    assert echo.settings.loss == 5


def test_sound_faster_than_speech_is_left_out(both):
    echo = Echo(both, settings(both), 0.0)
    for _ in range(20):
        echo.speak(np.zeros(48_000, np.float32), 0.1)
    assert echo.left_out >= 18 * 48_000


@pytest.mark.parametrize("text", ["", "[]", "1", '{"loss": "5"}', '{"loss": true}', '{"copies": 1}', '{"other": 1}'])
def test_settings_that_are_none_are_refused(text):
    with pytest.raises(UsageError):
        EchoSettings.read(text)


@pytest.fixture
def web():
    pytest.importorskip("aiohttp")
    from nacre.link import web

    return web


def talk(web, codec, work, headers=None):
    """What `work(client)` returns of a client of a server."""
    from aiohttp.test_utils import TestClient, TestServer

    async def run():
        async with TestClient(TestServer(web.application(codec)), headers=headers) as client:
            return await work(client)

    return asyncio.run(run())


def test_the_page_names_its_model_and_loads_nothing_from_elsewhere(web, both):
    async def pages(client):
        found = {}
        for path in web.PAGES:
            answer = await client.get(path)
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            found[path] = await answer.text()
        return found

    found = talk(web, both, pages)
    assert f"<b>{both.bundle.name}</b>" in found["/"]
    assert "//" not in found["/"].replace("<!doctype", "")
    assert "registerProcessor" in found["/worklet.js"]


def test_a_call_gives_sound_figures_and_errors(web, both):
    async def call(client):
        async with client.ws_connect("/call") as socket:
            await socket.send_str("nonsense")
            assert "error" in json.loads((await socket.receive(timeout=20)).data)
            await socket.send_json({"kbps": float(both.bundle.rates_kbps[1]), "rate_hz": 16_000, "delay_ms": 0})
            sound, figures = b"", None
            while not (sound and figures):
                await socket.send_bytes(b"\1\2" * 320)
                message = await socket.receive(timeout=20)
                if isinstance(message.data, bytes):
                    sound += message.data
                else:
                    figures = json.loads(message.data)
        return sound, figures

    sound, figures = talk(web, both, call)
    assert len(sound) % 2 == 0
    assert figures["received"] > 0


def test_pages_of_other_sites_are_refused(web, both):
    from aiohttp import WSServerHandshakeError

    async def call(client):
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect("/call", headers={"Origin": "http://elsewhere.example"})
        return refused.value.status

    assert talk(web, both, call) == 403


@asynccontextmanager
async def browser(session, url, folder, microphone):
    """A page in a browser of its own: a function that evaluates scripts in it."""
    flags = [*FLAGS, f"--user-data-dir={folder}", f"--use-file-for-fake-audio-capture={microphone}"]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(CHROMIUM, *flags, url, stdout=quiet, stderr=quiet)
    try:
        while not (told := folder / "DevToolsActivePort").exists() or not told.read_text():
            await asyncio.sleep(0.05)
        address, pages = f"http://127.0.0.1:{told.read_text().split()[0]}/json", []
        while not pages:
            async with session.get(address) as answer:
                pages = [page for page in await answer.json() if page["type"] == "page" and page["url"].startswith(url)]

        async def evaluate(script):
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"]) as socket:
                wanted = {"expression": script, "awaitPromise": True, "returnByValue": True}
                await socket.send_json({"id": 1, "method": "Runtime.evaluate", "params": wanted})
                answer = (await socket.receive_json())["result"]
                assert "exceptionDetails" not in answer, answer
                return answer["result"]["value"]

        yield evaluate
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_calls_itself(web, both, speech, tmp_path):
    """The microphone is a file; the page shows levels and figures, and what a change of the line does."""
    sf.write(tmp_path / "talk.wav", speech, 16_000)

    async def call(client):
        async with browser(
            client.session, str(client.make_url("/")), tmp_path / "profile", tmp_path / "talk.wav"
        ) as page:
            while not await page("document.readyState === 'complete' && 'start' in window"):
                await asyncio.sleep(0.05)
            return await asyncio.wait_for(page(CALL), 90)

    assert talk(web, both, call) == ["Speak: this is how the other end hears you.", "Stopped."]
