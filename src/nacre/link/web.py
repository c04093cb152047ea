"""A page that echoes one's voice through the codec: AudioWorklet, WebSocket, `Echo`. Home of aiohttp."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from aiohttp import WSMsgType, web

from nacre.codec.codec import Codec
from nacre.core.errors import NacreError
from nacre.core.types import Array
from nacre.link.echo import Echo, EchoSettings

PAGES = {"/": ("echo.html", "text/html"), "/echo.js": ("echo.js", "text/javascript")}
PAGES["/worklet.js"] = ("worklet.js", "text/javascript")
POLICY = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self' ws: wss:; img-src data:"
MOST_CALLS = 4  # each takes a third of a core
MOST_BYTES = 1 << 16  # of a message: a third of a second at the highest rate
MOST_PIECES = 25  # of sound that wait: a machine that is too slow leaves out the older ones
TICK_S = 0.01


@dataclass
class Served:
    """What all requests share."""

    codec: Codec
    calls: set[web.WebSocketResponse] = field(default_factory=set)


SERVED = web.AppKey("served", Served)


def application(codec: Codec) -> web.Application:
    """The page at /, and calls at /call: samples of 16 bits both ways, settings and figures as JSON."""
    app = web.Application()
    app[SERVED] = Served(codec)
    for path in PAGES:
        app.router.add_get(path, _page)
    app.router.add_get("/call", _call)
    app.on_shutdown.append(_hang_up)
    return app


async def serve(codec: Codec, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve until cancelled. Raises OSError where the address cannot be had."""
    runner = web.AppRunner(application(codec), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        tell(f"open http://{f'[{host}]' if ':' in host else host}:{port} in a browser; stop with Ctrl-C")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _page(request: web.Request) -> web.Response:
    name, kind = PAGES[request.path]
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    bundle = request.app[SERVED].codec.bundle
    lowest, highest = float(bundle.rates_kbps[0]), float(bundle.rates_kbps[-1])
    rates = {"lowest": math.ceil(2 * lowest) / 2, "highest": math.floor(2 * highest) / 2, "usual": min(6.0, highest)}
    for name, value in {"model": escape(bundle.name), **rates}.items():
        text = text.replace(f"${name}", str(value))
    return web.Response(text=text, content_type=kind, headers={"Content-Security-Policy": POLICY})


async def _call(request: web.Request) -> web.WebSocketResponse:
    """One call, as long as the page keeps it open. Pages of other sites are refused."""
    served = request.app[SERVED]
    origin = request.headers.get("Origin", "")
    if origin and origin.partition("://")[2] != request.host:
        raise web.HTTPForbidden(text="calls are for this server's own page")
    if len(served.calls) >= MOST_CALLS:
        raise web.HTTPServiceUnavailable(text=f"{MOST_CALLS} calls at a time")
    socket = web.WebSocketResponse(max_msg_size=MOST_BYTES, heartbeat=20)
    await socket.prepare(request)
    served.calls.add(socket)
    call = _Call(socket, served.codec)
    listening = asyncio.create_task(call.listen())
    try:
        await call.talk()
    finally:
        listening.cancel()
        served.calls.discard(socket)
    return socket


async def _hang_up(app: web.Application) -> None:
    for socket in list(app[SERVED].calls):
        await socket.close()


class _Call:
    """A socket and, once the page has sent settings, the echo behind it."""

    def __init__(self, socket: web.WebSocketResponse, codec: Codec):
        self.socket, self.codec = socket, codec
        self.echo: Echo | None = None
        self.spoken: deque[Array] = deque(maxlen=MOST_PIECES)

    async def talk(self) -> None:
        """Take what the page sends."""
        async for message in self.socket:
            now = time.monotonic()
            if message.type == WSMsgType.TEXT:
                try:
                    settings = EchoSettings.read(message.data)
                    self.echo = self.echo.change(settings, now) if self.echo else Echo(self.codec, settings, now)
                except NacreError as error:
                    await self.socket.send_json({"error": str(error)})
            elif message.type == WSMsgType.BINARY:
                self.spoken.append(_wave(message.data))

    async def listen(self) -> None:
        """Send what is due, and figures once a second."""
        while not self.socket.closed:
            await asyncio.sleep(TICK_S)
            if self.echo is None:
                continue
            now = time.monotonic()
            while self.spoken:
                self.echo.speak(self.spoken.popleft(), now)
            wave, figures = self.echo.hear(now), self.echo.figures(now)
            try:
                if len(wave):
                    await self.socket.send_bytes(np.rint(wave * 32767).astype("<i2").tobytes())
                if figures:
                    await self.socket.send_str(json.dumps(figures))
            except ConnectionError:
                return


def _wave(data: bytes) -> Array:
    """Samples of 16 bits, low byte first, as wave [N] float32; half a sample at the end is left out."""
    return np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / np.float32(32768)
