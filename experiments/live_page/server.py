"""The page's server: what it answers, and the stream of what has changed."""

import asyncio
import io
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from experiments.live_page import choices, drawing, guard, layers, snapshot
from experiments.live_page import setting as settings
from experiments.live_page.guard import Guard, TooLarge
from experiments.live_page.session import Busy, Published, Session
from mnist_jax import parallel
from mnist_jax.data import Dataset, DataUnavailable

_Result = TypeVar("_Result")

_FORM, _PICTURE, _SNAPSHOT = 64 * 1024, 24 * 2**20, 2**30  # bytes of a request, at most
_EVENT_SECONDS = 0.2  # between looks at what has changed
_SILENCE_SECONDS = 5.0  # then a comment says that the server is there
_MOST_PAGES = 24
_MOST_PICTURES = 8  # that wait for an answer
_KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_PAGE = resources.files("experiments.live_page") / "page"


class Pages:
    """The answers; one for all open pages."""

    def __init__(self, session: Session) -> None:
        self.stopping = False
        self._session = session
        self._menus = choices.menus()
        self._pictures = 0  # that wait
        self._uploading = asyncio.Lock()
        self._drawing = asyncio.Semaphore(2)
        self._files = {
            file.name: (file.read_bytes(), _KINDS[Path(file.name).suffix])
            for file in _PAGE.iterdir()
            if Path(file.name).suffix in _KINDS
        }

    def routes(self) -> list[Route]:
        """All there are; anything else is not found."""
        commands = {
            "/live/go": self._session.go,
            "/live/pause": self._session.pause,
            "/live/step": self._session.step,
        }
        return [
            Route("/", self._file),
            Route("/{name}", self._file, name="file"),
            *(
                Route(path, self._command(command), methods=["POST"])
                for path, command in commands.items()
            ),
            Route("/live/choices", self._choices),
            Route("/live/events", self._events),
            Route("/live/start", _answering(self._start), methods=["POST"]),
            Route("/live/adjust", _answering(self._adjust), methods=["POST"]),
            Route("/live/averages", _answering(self._averages), methods=["POST"]),
            Route("/live/draw", _answering(self._draw), methods=["POST"]),
            Route("/live/layers", _answering(self._layers)),
            Route("/live/layers", _answering(self._layers_of_picture), methods=["POST"]),
            Route("/live/image/{key}/{place:int}.png", _answering(self._image)),
            Route("/live/snapshot", _answering(self._download)),
            Route("/live/snapshot", _answering(self._upload), methods=["POST"]),
        ]

    async def _file(self, request: Request) -> Response:
        found = self._files.get(request.path_params.get("name", "index.html"))
        if found is None:
            return Response("Not found.\n", 404, media_type="text/plain")
        content, kind = found
        return Response(content, media_type=kind)

    async def _choices(self, request: Request) -> Response:
        return JSONResponse(self._menus)

    def _command(self, command: Callable[[], None]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            await guard.body(request, _FORM)
            await _done(self._session.ask(command))
            return JSONResponse({})

        return _answering(answer)

    async def _start(self, request: Request) -> Response:
        config = choices.read_form(await _form(request))
        self._check_trains()
        await _done(self._session.ask(lambda: self._session.restart(config)))
        return JSONResponse({})

    async def _adjust(self, request: Request) -> Response:
        form = await _form(request)
        self._check_trains()
        setting = self._session.setting
        if setting is None:
            raise ValueError("nothing trains yet.")
        unknown = [name for name in form if name not in choices.ADJUSTED]
        if unknown:
            raise ValueError(f"{str(unknown[0])[:60]!r} is changed by starting anew.")
        changes = choices.read_numbers(form, setting.config)
        await _done(self._session.ask(lambda: self._session.adjust(changes)))
        return JSONResponse({})

    async def _averages(self, request: Request) -> Response:
        form = await _form(request)
        if set(form) != {"on"} or not isinstance(form["on"], bool):
            raise ValueError("on must be true or false.")
        self._session.predictions.averages = form["on"]
        return JSONResponse({})

    async def _draw(self, request: Request) -> Response:
        content = await guard.body(request, _PICTURE)
        session = self._session

        def look() -> dict[str, Any]:
            published = self._published()
            digits = _digits(request, content, published)
            names, threshold = published.about.class_names, session.unsure_above
            rows = drawing.describe(published.members, digits, names, threshold)
            return {"digits": rows, "step": published.step}

        return JSONResponse(await self._one_of_few(look))

    async def _layers(self, request: Request) -> Response:
        session = self._session

        def asked() -> tuple[Dataset, int, int]:
            dataset = session.dataset
            if dataset is None or not len(dataset.test.labels):
                raise ValueError("there are no test images; draw one.")
            place = _whole(request, "image", len(dataset.test.labels))
            return dataset, place, _whole(request, "member", len(session.members()))

        def look() -> dict[str, Any]:
            dataset, place, number = asked()  # another training may have begun meanwhile
            image, label = dataset.test.inputs[place], int(dataset.test.labels[place])
            described = layers.describe(session.member(number), image, label)
            return described | {"label": session.about.class_names[label]}

        asked()  # what cannot be answered need not wait
        return JSONResponse(await _done(session.look(look)))

    async def _layers_of_picture(self, request: Request) -> Response:
        content = await guard.body(request, _PICTURE)

        def look() -> dict[str, Any]:
            published = self._published()
            digits = _digits(request, content, published)
            number = _whole(request, "member", len(published.members))
            chosen = _whole(request, "digit", len(digits))
            return layers.describe(published.members[number], digits[chosen].image, None)

        described = await self._one_of_few(look)
        return JSONResponse(described | {"label": None})

    def _published(self) -> Published:
        published = self._session.published
        if published is None:
            raise ValueError("there are no members yet.")
        return published

    async def _image(self, request: Request) -> Response:
        (key, images), place = self._session.images, request.path_params["place"]
        if request.path_params["key"] != key or place >= len(images):
            return Response("Not found.\n", 404, media_type="text/plain")
        png = as_png(images[place])
        return Response(png, media_type="image/png", headers={"cache-control": "max-age=3600"})

    async def _download(self, request: Request) -> Response:
        self._check_trains()
        state = await _done(self._session.ask(self._session.state_on_host))
        content = await run_in_threadpool(snapshot.write, *state)
        setting, _, _ = state
        name = f"{setting.name}-{len(setting.stack.seeds)}-step-{self._session.status['step']}.npz"
        return Response(
            content,
            media_type="application/octet-stream",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def _upload(self, request: Request) -> Response:
        self._check_trains()
        if self._uploading.locked():
            raise Busy("Another snapshot is being read; try again.")
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > _SNAPSHOT:
            raise TooLarge(f"A snapshot must be at most {_SNAPSHOT:,} bytes.")
        async with self._uploading:
            with tempfile.TemporaryDirectory() as folder:
                path, size = Path(folder) / "snapshot.npz", 0
                with path.open("wb") as file:
                    async for part in request.stream():
                        size += len(part)
                        if size > _SNAPSHOT:
                            raise TooLarge(f"A snapshot must be at most {_SNAPSHOT:,} bytes.")
                        file.write(part)
                found = await run_in_threadpool(snapshot.read, path)
            await _done(self._session.ask(lambda: self._install(found)))
        return JSONResponse({})

    def _install(self, found: snapshot.Snapshot) -> None:
        setting = settings.prepare(found.config, self._session.setting)
        if found.progress.steps >= setting.steps_per_epoch:
            raise ValueError("This snapshot's progress is beyond an epoch of the data here.")
        state = snapshot.restore(found, setting)
        placed = parallel.place(setting.stack.layout, state)
        self._session.install(setting, placed, found.progress)

    def _check_trains(self) -> None:
        if self._session.status["state"] == "viewing":
            raise ValueError("this is a trained workdir, shown without training.")

    async def _one_of_few(self, function: Callable[[], _Result]) -> _Result:
        """Beside the training, of few at a time: more wait, and too many are refused."""
        if self._pictures >= _MOST_PICTURES:
            raise Busy("Too many pictures at once; try again.")
        self._pictures += 1
        try:
            async with self._drawing:
                return await run_in_threadpool(function)
        finally:
            self._pictures -= 1

    async def _events(self, request: Request) -> Response:
        if self._session.watchers >= _MOST_PAGES:
            return Response("Too many pages are open.\n", 503, media_type="text/plain")
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        session = self._session
        session.watchers += 1
        seen: dict[str, Any] = {}
        silent = 0.0
        try:
            yield "retry: 2000\n\n"
            while not self.stopping:
                news = self._news(seen)
                for name, content in news:
                    yield f"event: {name}\ndata: {json.dumps(content, allow_nan=False)}\n\n"
                silent = 0.0 if news else silent + _EVENT_SECONDS
                if silent >= _SILENCE_SECONDS:
                    silent = 0.0
                    yield ": still here\n\n"
                await asyncio.sleep(_EVENT_SECONDS)
            yield "event: stopped\ndata: {}\n\n"
        finally:
            session.watchers -= 1

    def _news(self, seen: dict[str, Any]) -> list[tuple[str, Any]]:
        """What has changed since a page was told last; `seen` says, and is changed."""
        session, news = self._session, []
        status = session.status
        if status != seen.get("status"):
            seen["status"] = status
            news.append(("status", status))
        curve = session.measures.curve
        points, key = curve.points, (id(curve), curve.revision)
        known = seen.get("points", 0) if seen.get("curve") == key else 0
        if seen.get("curve") != key or len(points) > known:
            seen["curve"], seen["points"] = key, len(points)
            news.append(("curve", {"from": known, "points": points[known:]}))
        predictions = session.predictions
        version = id(predictions), predictions.version, predictions.averages
        if version != seen.get("predictions"):
            seen["predictions"] = version
            news.append(("predictions", predictions.describe()))
        return news


def make_app(session: Session, token: str | None = None) -> tuple[Starlette, Pages]:
    """The application, for a server or for tests."""
    pages = Pages(session)
    middleware = [Middleware(Guard, token=token)]
    return Starlette(routes=pages.routes(), middleware=middleware), pages


def _digits(request: Request, content: bytes, published: Published) -> list[drawing.Digit]:
    reader = drawing.read if request.query_params.get("photo") == "1" else drawing.of_strokes
    return reader(content, published.about.characters, published.about.image_shape)


def as_png(image: np.ndarray) -> bytes:
    """uint8 `[height, width, 1 or 3]` as a file."""
    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "PNG")
    return content.getvalue()


def _answering(
    answer: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """With what is wrong as a line of JSON."""

    async def wrapped(request: Request) -> Response:
        try:
            return await answer(request)
        except TooLarge as error:
            return _problem(413, error)
        except Busy as error:
            return _problem(503, error)
        except (ValueError, DataUnavailable) as error:
            return _problem(400, error)

    return wrapped


def _problem(code: int, error: Exception) -> Response:
    line = " ".join(str(error).split("\n")[:2])
    return JSONResponse({"error": line[:1].upper() + line[1:]}, code)


async def _done(future: "Future[_Result]") -> _Result:
    return await asyncio.wrap_future(future)


async def _form(request: Request) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is none.
    """
    content = await guard.body(request, _FORM)
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ValueError("the content type must be application/json.")
    try:
        form = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("the request is no JSON.") from None
    if not isinstance(form, dict):
        raise ValueError("the request must be a JSON object.")
    return form


def _whole(request: Request, name: str, count: int) -> int:
    """A number of the address, from 0 to below `count`."""
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < count):
        raise ValueError(f"{name} must be from 0 to {count - 1}, not {text[:40]!r}.")
    return int(text)
