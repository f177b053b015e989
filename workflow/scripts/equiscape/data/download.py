"""Downloads that can be trusted: checksum, mirrors, retries, resume, and nothing half done.

Pooch does the bookkeeping (temporary file, checksum, move); what is added here is a downloader
that goes on where a broken transfer stopped, a list of mirrors, and one sentence for each way in
which a download fails. A file stands under its final name only once its checksum is right.

Some hosts of scientific data let their certificate expire. Where the SHA-256 is known it is the
checksum that is trusted, so such a host is asked again without verifying the certificate, and the
log says so; without a SHA-256 an invalid certificate is an error.
"""

import errno
import logging
import os
import shutil
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm

from equiscape import io
from equiscape.data import KINDS
from equiscape.errors import ConfigError, DataError, first_line
from equiscape.files.archives import open_source
from equiscape.registry import lookup

log = logging.getLogger(__name__)
pooch.get_logger().setLevel("WARNING")

FOLDER_VARIABLE = "EQUISCAPE_DOWNLOADS"
ATTEMPTS = 4  # at each address
WAIT = 2.0  # seconds before the second attempt, doubled for each further one
TIMEOUT = (20, 60)  # seconds to connect, and between two pieces of the answer
PIECE = 1 << 20
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Permanent(Exception):
    """This address will not do better at the next attempt."""


def download(entry: dict[str, Any], folder: Path, record: Path) -> Path:
    """Fetch the source of a data set and write a record of it.

    Args:
        entry: ``source`` (a URL, a local path, or ``pyg`` for what PyTorch Geometric fetches),
            ``mirrors`` (further URLs of the same bytes), ``sha256`` and ``kind``.
        folder: where the file goes. A file of the same name in the folder that the environment
            variable EQUISCAPE_DOWNLOADS names is used where it lies, without a network.
        record: JSON to write: ``path``, ``sha256``, ``bytes``. Preparation reads the path
            and depends on the record alone, so data are prepared anew when the bytes change, not
            when a file is touched.

    Returns:
        the path of the file or folder.

    Raises:
        DataError: no address gave the right file; nothing is left under its final name.
        ConfigError: ``source`` is no http address.
    """
    source, folder = entry["source"], Path(folder)
    if source == "pyg":
        path, url = lookup(KINDS, entry["kind"], "kind").download(folder), source
    elif "://" not in source:
        path, url = Path(source), None
        if path.is_file():
            verify(path, entry.get("sha256"))
    else:
        urls = [source, *(entry.get("mirrors") or [])]
        path, url = fetch(urls, folder, entry.get("sha256"))
    log.info("%s from %s", path, url or "where it was")
    io.write_json(record, {"path": str(path), **_identity(path)})
    return path


def fetch(
    urls: list[str], folder: Path, checksum: str | None = None, name: str | None = None
) -> tuple[Path, str | None]:
    """Fetch one file from the first of its addresses that serves it.

    Args:
        urls: of the same bytes, in order of preference.
        folder: where it goes.
        checksum: SHA-256 in hex, or ``algorithm:hex`` (``md5:...``); None trusts the server.
        name: of the file; by default the last part of the first address.

    Returns:
        the path, and the URL that served it (None where it was there already).

    Raises:
        DataError: none of them served the right file; the message says why, address by address.
        ConfigError: an address is not http or https.
    """
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ConfigError(
                f"source: {url} is not an http address; give a local file by its plain path."
            )
    name = name or Path(urlsplit(urls[0]).path).name
    shared = os.environ.get(FOLDER_VARIABLE)
    for place in filter(None, (shared, folder)):
        path = Path(place) / name
        if path.is_file():
            if not checksum or matches(path, checksum):
                return path, None
            if place == shared:
                raise DataError(
                    f"{path} ({FOLDER_VARIABLE}) does not have the checksum {checksum}; replace it."
                )
            path.unlink()
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    faults = []
    for url in urls:
        try:
            _fetch(url, path, checksum)
            return path, url
        except _Permanent as fault:
            log.warning("%s: %s", url, fault)
            faults.append(f"{url}: {fault}")
    raise DataError(
        f"{name} could not be downloaded ({'; '.join(faults)}); run again later, or give a local "
        f"file by `source` or in the folder {FOLDER_VARIABLE}."
    )


def fetch_into(folder: Path, name: str, url: str, checksum: str | None = None) -> None:
    """Fetch a file as :func:`fetch` does, and have it in ``folder`` wherever it was found."""
    path, _ = fetch([url], folder, checksum, name)
    if path.parent != folder:
        with io.atomic_path(folder / name) as temporary:
            shutil.copyfile(path, temporary)


def unpack(archive: Path, names: Iterable[str], folder: Path) -> None:
    """Write the files ``names`` of an archive into ``folder``, whatever folder they were in.

    Raises:
        DataError: the archive is damaged or lacks one of them.
    """
    with open_source(archive) as source:
        for name in names:
            with io.atomic_path(folder / name) as temporary, source.open(name) as member:
                try:
                    with open(temporary, "wb") as file:
                        shutil.copyfileobj(member, file, PIECE)
                except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                    raise source.damaged(name, error) from None


def matches(path: Path, checksum: str) -> bool:
    """Whether a file has the ``checksum``, ``hex`` (SHA-256) or ``algorithm:hex``."""
    algorithm, _, digest = checksum.rpartition(":")
    return pooch.file_hash(str(path), alg=algorithm or "sha256") == digest.lower()


def verify(path: Path, checksum: str | None) -> None:
    """Refuse a local file that has not the ``checksum`` (None: anything goes).

    Raises:
        DataError: naming the file.
    """
    if checksum and not matches(path, checksum):
        raise DataError(f"{path} does not have the checksum {checksum}; get it again.")


def _identity(path: Path) -> dict[str, Any]:
    """Checksum and size of a file; of a folder, of all its files."""
    if path.is_file():
        return {"sha256": io.sha256(path), "bytes": path.stat().st_size}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    sums = {str(file.relative_to(path)): io.sha256(file) for file in files}
    size = sum(file.stat().st_size for file in files)
    return {"sha256": io.settings_hash(sums), "bytes": size, "files": sums}


def _fetch(url: str, path: Path, checksum: str | None) -> None:
    """Fetch ``url`` to ``path``, in several attempts; :class:`_Permanent` where they all fail."""
    unchecked = path.with_name(f".{path.name}.unchecked")
    partial = path.with_name(f".{path.name}.partial")
    if not checksum:
        partial.unlink(missing_ok=True)  # two halves can only be joined if the sum is known
    unchecked.unlink(missing_ok=True)
    known = checksum and (checksum if ":" in checksum else f"sha256:{checksum}").lower()
    sha256 = bool(known) and known.startswith("sha256:")  # MD5 can be forged
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        downloader = _Resuming(partial, trusted=sha256)
        try:
            pooch.retrieve(url, known, unchecked.name, str(path.parent), downloader=downloader)
            _check_content(unchecked)
            with open(unchecked, "rb") as file:
                os.fsync(file.fileno())
            os.replace(unchecked, path)
            return
        except requests.HTTPError as error:
            fault = f"the server answered {error.response.status_code} {error.response.reason}"
            if error.response.status_code < 500 and error.response.status_code != 429:
                raise _Permanent(fault) from None
        except (requests.ConnectionError, requests.Timeout) as error:
            fault = f"the connection failed ({_reason(error)})"
        except requests.RequestException as error:
            fault = f"the transfer broke off ({_reason(error)})"
        except ValueError:  # pooch: the checksum is wrong
            fault = "the file has a wrong checksum"
            if not downloader.resumed:
                raise _Permanent(fault) from None
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            partial.unlink(missing_ok=True)
            raise DataError(
                f"{path.parent} has no room for {path.name} ({error.strerror}); free some space "
                "and run again."
            ) from None
        except DataError as error:
            raise _Permanent(str(error).replace(str(unchecked), path.name).rstrip(".")) from None
        finally:
            unchecked.unlink(missing_ok=True)
        log.info("%s: %s, attempt %d of %d", url, fault, attempt + 1, ATTEMPTS)
    raise _Permanent(fault)


def _check_content(path: Path) -> None:
    """Refuse an archive that does not open, has damaged members, or members outside it."""
    if path.name.removesuffix(".unchecked").endswith(ARCHIVES):
        with open_source(path) as source:
            for name in source.names:
                with source.open(name) as member:
                    try:
                        while member.read(PIECE):
                            pass
                    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                        raise source.damaged(name, error) from None


def _reason(error: Exception) -> str:
    """The innermost cause, which says more than the library's wrapping."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return first_line(error)


class _Resuming:
    """A pooch downloader that keeps a broken transfer beside the file and goes on from there."""

    def __init__(self, partial: Path, trusted: bool):
        self.partial, self.trusted = partial, trusted
        self.resumed = False

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        start = self.partial.stat().st_size if self.partial.exists() else 0
        # Servers may compress a file on the way, which would make sizes and ranges mean nothing.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with _get(url, headers, self.trusted) as response:
            if response.status_code == 416:  # nothing after `start`: complete, or another file
                self.resumed = True
            else:
                response.raise_for_status()
                self.resumed = response.status_code == 206
                self._store(response, start if self.resumed else 0)
        _refuse_page(self.partial)
        os.replace(self.partial, output_file)

    def _store(self, response: requests.Response, start: int) -> None:
        length = int(response.headers.get("Content-Length", 0))
        free = shutil.disk_usage(self.partial.parent).free
        if length > free:
            raise OSError(errno.ENOSPC, f"{length - free} bytes are missing")
        total = start + length or None
        log.info("%s: %s bytes", response.url, total or "an unknown number of")
        with (
            open(self.partial, "ab" if start else "wb") as file,
            tqdm(
                total=total,
                initial=start,
                unit="B",
                unit_scale=True,
                desc=self.partial.name.strip(".").removesuffix(".partial"),
                disable=not sys.stderr.isatty(),
            ) as progress,
        ):
            for piece in response.iter_content(PIECE):
                file.write(piece)
                progress.update(len(piece))


def _get(url: str, headers: dict[str, str], trusted: bool) -> requests.Response:
    """Open ``url``; where the content is ``trusted`` by its SHA-256, despite a bad certificate."""
    try:
        return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.exceptions.SSLError as error:
        if not trusted:
            raise _Permanent(
                f"its certificate is not valid ({_reason(error)}); give its sha256"
            ) from None
        log.warning("%s: certificate not valid (%s); the SHA-256 decides.", url, _reason(error))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has just been said, once
        return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT, verify=False)


def _refuse_page(path: Path) -> None:
    """Refuse an HTML page, which servers send in place of a file that they do not have."""
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        path.unlink()
        raise _Permanent("the server sent an HTML page instead of the file")
