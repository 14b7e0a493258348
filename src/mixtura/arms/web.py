"""An arm behind a URL: the protocol of a command, with one POST for each request."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

from numpy.typing import NDArray

from mixtura.arms.arm import Arm, ArmError, answered, shown
from mixtura.arms.process import LIMIT, TIMEOUT
from mixtura.contracts import InputError

#: statuses for which a repetition may help: too many requests, timeouts, errors of the server
TRANSIENT = (408, 425, 429, *range(500, 600))


class Service(Arm):
    """POSTs ``body`` with "seed" and "key" to ``url``; the key is also sent as the header Idempotency-Key. The answer is that of
    a command. Redirections are not followed, so that no other server sees the headers (which may hold a secret), and proxies are
    not used.

    timeout: seconds for one attempt, from name look-up to last byte. Attempts that fail in transit, or with status 408, 425, 429
    or 5xx, are repeated at most ``retries`` times, after 0.5 s, 1 s, 2 s, …
    """

    pause = 0.5
    takes_context = True

    def __init__(
        self, name: str, url: str, *, headers: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None,
        timeout: float = TIMEOUT, retries: int = 0, limit: int = LIMIT, cost: float = 0.0, takes_key: bool = False,
        repeatable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(name, cost=cost, takes_key=takes_key, repeatable=repeatable, retries=retries)
        self._url = _address(url)
        self.headers, self.body, self.timeout, self.limit = dict(headers or {}), dict(body or {}), timeout, limit

    def _ask(self, seed: int, key: str) -> NDArray[Any]:
        return self._request({"seed": seed, "key": key})

    def _ask_in(self, seed: int, key: str, context: Mapping[str, Any]) -> NDArray[Any]:
        return self._request({"seed": seed, "key": key, "context": dict(context)})

    def _request(self, request: dict[str, Any]) -> NDArray[Any]:
        post = _Post(self._connection(), self.limit)
        headers = {"Content-Type": "application/json", **self.headers, "Idempotency-Key": request["key"]}
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        body = json.dumps({**self.body, **request}).encode()
        thread = threading.Thread(target=post.run, args=(path, body, headers), daemon=True)
        thread.start()
        # the timeout of a socket restarts at each byte, so it does not bound the whole answer
        thread.join(self.timeout)
        # but it may end a wait for the first byte just before the thread's timeout
        if thread.is_alive() or isinstance(post.error, TimeoutError):
            post.cut()
            raise ArmError(f"{self.name}: no complete answer within {self.timeout:g} s")
        if post.error is not None:
            raise ArmError(f"{self.name}: {type(post.error).__name__}: {shown(str(post.error))}") from post.error
        if len(post.content) > self.limit:
            raise ArmError(f"{self.name}: its answer has more than {self.limit:,} bytes", again=False)
        if post.status != 200:
            said = f": {shown(post.content)}" if post.content.strip() else ""
            raise ArmError(f"{self.name}: answered with status {post.status}{said}", again=post.status in TRANSIENT)
        return answered(post.content, self.name)

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        return kind(self._url.hostname or "", self._url.port, timeout=self.timeout)


class _Post:
    """One request, run in a thread of its own so that it can be cut off."""

    def __init__(self, connection: http.client.HTTPConnection, limit: int) -> None:
        self.connection, self.limit = connection, limit
        self.status, self.content = 0, b""
        self.error: Exception | None = None

    def run(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send, and read at most one byte more than the limit."""
        try:
            self.connection.request("POST", path, body, dict(headers))
            response = self.connection.getresponse()
            self.status, self.content = response.status, response.read(self.limit + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = error
        finally:
            self.connection.close()

    def cut(self) -> None:
        """Close the socket, which ends the request of the thread."""
        sock = self.connection.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isascii() and url.isprintable()
    except ValueError as error:
        raise InputError(f"url: {url!r} is not valid ({error}); write it in full, such as https://host/path") from error
    if not whole or " " in url:
        raise InputError(f"url: {url!r} is not valid, expected http://… or https://…; write it in full")
    if parts.username or parts.password:
        raise InputError("url: holds a user name or password; put it into `headers`, from an environment variable")
    return parts
