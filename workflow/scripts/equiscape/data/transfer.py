"""One HTTP transfer that trusts nothing of what the server says, and can go on where it stopped.

A transfer lives in a folder of its own beside the file, ``.NAME.transfer``, that only its user may
enter: ``data`` is what has come, opened so that a planted link is not followed, and ``answer.json``
what the server said of the file. It goes on only where the server answers for the same file:
``Content-Range`` starts where the data end, and ETag or Last-Modified are those of before (or, with
a known SHA-256, there are none).
"""

import errno
import json
import logging
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from threading import Thread
from typing import Any

import requests
from tqdm import tqdm

from equiscape.addresses import VARIABLE, redact
from equiscape.errors import ConfigError, DataError, first_line
from equiscape.io import read_json

log = logging.getLogger(__name__)

TIMEOUT = (20, 60)  # seconds to connect, and between two pieces of the answer
HEADERS = 120.0  # seconds for the head of an answer
PIECE = 1 << 20
WINDOW = 60.0  # seconds over which a speed is measured
LEAST_SPEED = 1000  # bytes a second
LARGEST = 2**50  # bytes that a server may announce


class PermanentFault(Exception):
    """This address will not do better at the next attempt."""


class SlowFault(Exception):
    """The server sends too little in a minute."""


def expand(url: str) -> tuple[str, list[str]]:
    """An address with ``${NAME}`` replaced from the environment, and the values that were put in.

    Raises:
        ConfigError: the environment has no such variable.
    """
    values = []
    for name in VARIABLE.findall(url):
        if not os.environ.get(name):
            raise ConfigError(f"source: the environment variable {name} is not set; set it.")
        values.append(os.environ[name])
    return VARIABLE.sub(lambda match: os.environ[match[1]], url), values


def hidden(text: str, values: Iterable[str]) -> str:
    """:func:`redact`, and none of ``values``."""
    for value in values:
        text = text.replace(value, "***")
    return redact(text)


class Transfer:
    """A pooch downloader that keeps a broken transfer beside the file and goes on from there.

    Args:
        folder: of the transfer; made, and refused where somebody else made it.
        name: of the file, for messages.
        trusted: whether a SHA-256 decides in the end: then a bad certificate and the lack of a
            validator are excused.
        least_speed: bytes a second, over a minute, below which it is given up; 0 for none.
        secrets: parts of the address that no message repeats.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        trusted: bool,
        least_speed: int = LEAST_SPEED,
        secrets: Iterable[str] = (),
    ):
        self.folder, self.name, self.secrets = folder, name, list(secrets)
        self.trusted, self.least_speed = trusted, least_speed
        self.resumed = False
        own_folder(folder)
        self.data, self.answer = folder / "data", folder / "answer.json"

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Fetch ``url`` to ``output_file``, as pooch calls it."""
        start, known = self._state()
        # Servers may compress a file on the way, which would make sizes and ranges mean nothing.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            validator = known.get("ETag") or known.get("Last-Modified")
            if validator and not validator.startswith("W/"):
                headers["If-Range"] = validator
        with _get(url, headers, self.trusted) as response:
            self.resumed = False
            if response.status_code == 416:  # nothing after `start`: complete, or another file
                self.resumed = True
                if not self.trusted:
                    self.forget()
                    raise requests.ConnectionError("the server has no such range")
            else:
                response.raise_for_status()
                if start and response.status_code == 206:
                    self._check_range(response, start, known)
                    self.resumed = True
                elif response.status_code == 206:
                    raise PermanentFault("the server sends a part of the file for the whole")
                self._store(response, start if self.resumed else 0)
        _refuse_page(self.data)
        os.replace(self.data, output_file)

    def forget(self) -> None:
        """Start over at the next attempt."""
        for file in (self.data, self.answer):
            file.unlink(missing_ok=True)

    def _state(self) -> tuple[int, dict[str, str]]:
        """How much has come, and what the server said of it; nothing where that is unknown."""
        try:
            known = read_json(self.answer, "transfer")
        except DataError:  # none yet, or damaged
            known = {}
        usable = self.trusted or known.get("ETag") or known.get("Last-Modified")
        if self.data.is_symlink() or (self.data.exists() and not usable):
            self.forget()
        return (self.data.stat().st_size if self.data.is_file() else 0), known

    def _check_range(self, response: requests.Response, start: int, known: dict[str, str]) -> None:
        """Refuse to go on with another file, or from another place."""
        found = re.fullmatch(
            r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("Content-Range", "")
        )
        same = all(
            response.headers.get(name, known[name]) == known[name]
            for name in ("ETag", "Last-Modified")
            if known.get(name)
        )
        if not found or int(found[1]) != start or not same:
            self.forget()
            raise requests.ConnectionError(
                "the server went on with another part" if same else "the file on the server changed"
            )

    def _store(self, response: requests.Response, start: int) -> None:
        length = _length(response)
        free = shutil.disk_usage(self.folder).free
        if length is not None and length > free:
            raise PermanentFault(
                f"the server announces {length} bytes, and {self.folder.parent} has no room for "
                f"{self.name}: {free} bytes are free"
            )
        said = {k: response.headers[k] for k in ("ETag", "Last-Modified") if k in response.headers}
        self.answer.write_text(json.dumps(said))
        total = None if length is None else start + length
        address = hidden(response.url, self.secrets)
        log.info("%s: %s bytes", address, total or "an unknown number of")
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (0 if start else os.O_TRUNC)
        handle = os.open(self.data, flags, 0o600)
        with (
            open(handle, "wb") as file,
            tqdm(
                total=total,
                initial=start,
                unit="B",
                unit_scale=True,
                desc=self.name,
                disable=not sys.stderr.isatty(),
            ) as progress,
        ):
            file.seek(start)
            file.truncate()
            received, window, since = 0, 0, time.monotonic()
            while piece := response.raw.read1(PIECE):
                file.write(piece)
                progress.update(len(piece))
                received, window = received + len(piece), window + len(piece)
                seconds = time.monotonic() - since
                if seconds >= WINDOW:
                    if window < self.least_speed * seconds:
                        raise SlowFault(f"it sends less than {self.least_speed} bytes a second")
                    window, since = 0, time.monotonic()
            if length is not None and received != length:
                raise requests.exceptions.ChunkedEncodingError(f"{received} of {length} bytes came")


def own_folder(folder: Path) -> None:
    """A private folder that is nobody else's.

    Raises:
        DataError: something else is there: a link, a file, or another user's folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        stat = folder.lstat()
        if folder.is_symlink() or not folder.is_dir() or stat.st_uid != os.getuid():
            raise DataError(
                f"{folder} is a link or not this user's folder, so nothing is written through it; "
                "look at what it is, and move it away."
            ) from None


def _length(response: requests.Response) -> int | None:
    """What the server says that the answer holds.

    Raises:
        PermanentFault: it is no length that a file can have.
    """
    text = response.headers.get("Content-Length")
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,18}", text.strip()) or int(text) > LARGEST:
        raise PermanentFault(f"the server announces an impossible length ({text[:40]!r})")
    return int(text)


def reason(error: BaseException) -> str:
    """The innermost cause, which says more than the library's wrapping."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return redact(first_line(error))


def _get(url: str, headers: dict[str, str], trusted: bool) -> requests.Response:
    """Open ``url``; where the content is ``trusted`` by its SHA-256, despite a bad certificate."""
    try:
        return _timely(url, headers)
    except requests.exceptions.SSLError as error:
        if not trusted:
            raise PermanentFault(
                f"its certificate is not valid ({reason(error)}); give its sha256"
            ) from None
        log.warning(
            "%s: certificate not valid (%s); the SHA-256 decides.", redact(url), reason(error)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has just been said, once
        return _timely(url, headers, verify=False)


def _timely(url: str, headers: dict[str, str], **options: Any) -> requests.Response:
    """``requests.get``, given up where the head of the answer alone takes too long."""
    result: list[Any] = []

    def ask() -> None:
        try:
            result.append(
                requests.get(url, headers=headers, stream=True, timeout=TIMEOUT, **options)
            )
        except BaseException as error:
            result.append(error)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HEADERS)
    if not result:
        raise SlowFault("it does not answer")
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def _refuse_page(path: Path) -> None:
    """Refuse an HTML page, which servers send in place of a file that they do not have."""
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        path.unlink()
        raise PermanentFault("the server sent an HTML page instead of the file")


_URLLIB3: Any = requests.packages.urllib3  # type: ignore[attr-defined]  # set at run time
BROKEN = (_URLLIB3.exceptions.HTTPError, requests.RequestException)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
