"""Who may ask the page's server for what: names, origins, the token, sizes."""

import hmac
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "mnist_jax_live"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class TooLarge(ValueError):
    """A request's body is longer than what it is for."""


class Guard:
    """Lets requests through that the page itself makes, or whoever has the token.

    Without a token the server listens to this machine alone, and only asked for by one of its
    names: a foreign page whose name has been made to lead here has another `Host`. But for the page
    itself, requests are taken from its own origin alone, also with a token.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        refused = self._refusal(scope, headers)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in _HEADERS.items()
                        if name.encode() not in own
                    ),
                ]
            await send(message)

        await (refused or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        host = headers.get("host", "")
        if self._token is None and _without_port(host) not in LOOPBACK:
            return PlainTextResponse("This server is for this machine alone.\n", 403)
        may_be_linked = scope["method"] in ("GET", "HEAD") and scope["path"] == "/"
        if not may_be_linked and not _is_same_origin(host, headers):
            return PlainTextResponse("Requests of other origins are not taken.\n", 403)
        return None if self._token is None else self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """None for who has the token; a redirect that leaves it as a cookie; or a refusal."""
        assert self._token is not None
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            morsel = None
        if morsel is not None and _same(morsel.value, self._token):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] == "GET" and scope["path"] == "/" and _same(given, self._token):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return answer
        return PlainTextResponse("Open this page by its address with ?token=...\n", 403)


def _is_same_origin(host: str, headers: dict[str, str]) -> bool:
    """Browsers say where a request comes from; other programs do not."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin in (f"http://{host}", f"https://{host}")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


async def body(request: Request, most: int) -> bytes:
    """A request's body.

    Raises:
        TooLarge: it has more than `most` bytes; what is too much is not read.
    """
    parts, size = [], 0
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        raise TooLarge(f"must be at most {most:,} bytes, not {int(announced):,}.")
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise TooLarge(f"must be at most {most:,} bytes.")
        parts.append(part)
    return b"".join(parts)
