"""Downloads that can be trusted: checksum, mirrors, retries, resume, and nothing half done.

Pooch does the bookkeeping (temporary file, checksum, move); what is added here is a downloader
that goes on where a broken transfer stopped, a list of mirrors, and one sentence for each way in
which a download fails. A file stands under its final name only once its checksum is right.

Some hosts of scientific data let their certificate expire. Where the SHA-256 is known it is the
checksum that is trusted, so such a host is asked again without verifying the certificate, and the
log says so; without a SHA-256 an invalid certificate is an error.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests

from equiscape import io
from equiscape.addresses import check_address, redact
from equiscape.data import KINDS, reads
from equiscape.data.sources import folder_with
from equiscape.data.transfer import (
    BROKEN,
    LEAST_SPEED,
    NO_ROOM,
    PermanentFault,
    SlowFault,
    Transfer,
    expand,
    hidden,
    reason,
)
from equiscape.errors import ConfigError, DataError, first_line
from equiscape.files.archives import DAMAGE, files_below, open_source
from equiscape.registry import lookup
from equiscape.source import constants

log = logging.getLogger(__name__)
pooch.get_logger().setLevel("WARNING")

FOLDER_VARIABLE = "EQUISCAPE_DOWNLOADS"
ATTEMPTS = 4  # at each address
WAIT = 2.0  # seconds before the second attempt, doubled for each further one
PIECE = 1 << 20
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


def download(
    entry: dict[str, Any], folder: Path, record: Path, least_speed: int = LEAST_SPEED
) -> Path:
    """Fetch the source of a data set and write a record of it.

    Args:
        entry: ``source`` (a URL, a local path, or ``pyg`` for what PyTorch Geometric fetches),
            ``mirrors`` (further URLs of the same bytes), ``sha256`` and ``kind``.
        folder: where the file goes. A file of the same name in the folder that the environment
            variable EQUISCAPE_DOWNLOADS names is used where it lies, without a network.
        record: JSON to write: ``path``, ``sha256``, ``bytes``. Preparation reads the path
            and depends on the record alone, so data are prepared again when the bytes change, not
            when a file is touched.
        least_speed: bytes a second, over a minute, below which an address is given up.

    Returns:
        the path of the file or folder.

    Raises:
        DataError: no address gave the right file; nothing is left under its final name.
        ConfigError: ``source`` is no http address.
    """
    source, folder = entry["source"], Path(folder)
    if source == "pyg":
        kind = lookup(KINDS, entry["kind"], "kind")
        path, url = placed(kind.RAW_FILES) or kind.download(folder), source
    elif "://" not in source:
        path, url = Path(source), None
        if path.is_file():
            verify(path, entry.get("sha256"))
    else:
        urls = [source, *(entry.get("mirrors") or [])]
        path, url = fetch(urls, folder, entry.get("sha256"), least_speed=least_speed)
    log.info("%s from %s", path, url or "where it was")
    module = KINDS.get(entry["kind"], entry["kind"])
    patterns = constants(module).get("FILES", ("**/*",))
    io.write_json(record, {"path": str(path), **_identity(path, patterns)})
    return path


def placed(names: Iterable[str]) -> Path | None:
    """The folder in EQUISCAPE_DOWNLOADS, or below it, where all of ``names`` were put by hand."""
    shared = os.environ.get(FOLDER_VARIABLE)
    if not shared or not Path(shared).is_dir():
        return None
    names = list(names)
    found = folder_with(Path(shared), names)
    return found if all((found / name).is_file() for name in names) else None


def fetch(
    urls: list[str],
    folder: Path,
    checksum: str | None = None,
    name: str | None = None,
    least_speed: int = LEAST_SPEED,
) -> tuple[Path, str | None]:
    """Fetch one file from the first of its addresses that serves it.

    Args:
        urls: of the same bytes, in order of preference.
        folder: where it goes.
        checksum: SHA-256 in hex, or ``algorithm:hex`` (``md5:...``); None trusts the server.
        name: of the file; by default the last part of the first address.
        least_speed: bytes a second, over a minute, below which an address is given up.

    Returns:
        the path, and the URL that served it (None where it was there already).

    Raises:
        DataError: none of them served the right file; the message says why, address by address.
        ConfigError: an address is not http or https.
    """
    for url in urls:
        check_address(url, "source")
    name = name or Path(urlsplit(urls[0]).path).name
    if not name or name.startswith("."):
        raise ConfigError(f"source: {redact(urls[0])} does not end in the name of a file.")
    shared = os.environ.get(FOLDER_VARIABLE)
    places: list[str | Path] = [shared, folder] if shared else [folder]
    for place in places:
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
            _fetch(url, path, checksum, least_speed)
            return path, redact(url)
        except PermanentFault as fault:
            log.warning("%s: %s", redact(url), fault)
            faults.append(f"{redact(url)}: {fault}")
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
                except DAMAGE as error:
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


def _identity(path: Path, patterns: Iterable[str]) -> dict[str, Any]:
    """Checksum and size of a file; of a folder, of its files that fit ``patterns``."""
    if path.is_file():
        return {"sha256": io.sha256(path), "bytes": path.stat().st_size}
    files = [path / file for file in files_below(path) if reads(patterns, file)]
    sums = {str(file.relative_to(path)): io.sha256(file) for file in files}
    size = sum(file.stat().st_size for file in files)
    return {"sha256": io.settings_hash(sums), "bytes": size, "files": sums}


def _fetch(url: str, path: Path, checksum: str | None, least_speed: int) -> None:
    """Fetch ``url`` to ``path``, in some attempts; :class:`PermanentFault` where they all fail."""
    url, secrets = expand(url)
    folder = path.with_name(f".{path.name}.transfer")
    known = (checksum if ":" in checksum else f"sha256:{checksum}").lower() if checksum else None
    sha256 = known is not None and known.startswith("sha256:")  # MD5 can be forged
    transfer = Transfer(folder, path.name, sha256, least_speed, secrets)
    unchecked = folder / path.name
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT * 2 ** (attempt - 1))
        try:
            pooch.retrieve(url, None, unchecked.name, str(folder), downloader=transfer)
            if known and not matches(unchecked, known):
                fault = "the file has a wrong checksum"
                transfer.forget()
                if not transfer.resumed:
                    raise PermanentFault(fault)
            else:
                _check_content(unchecked)
                with open(unchecked, "rb") as file:
                    os.fsync(file.fileno())
                mask = os.umask(0)
                os.umask(mask)
                unchecked.chmod(0o666 & ~mask)
                os.replace(unchecked, path)
                shutil.rmtree(folder, ignore_errors=True)
                return
        except requests.HTTPError as error:
            answer: Any = error.response  # raise_for_status always gives it
            fault = f"the server answered {answer.status_code} {answer.reason}"
            if answer.status_code < 500 and answer.status_code != 429:
                raise PermanentFault(hidden(fault, secrets)) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader) as error:
            raise PermanentFault(hidden(f"no request can be made ({error})", secrets)) from None
        except SlowFault as error:
            fault = f"the transfer was given up, since {error}"
        except (requests.ConnectionError, requests.Timeout) as error:
            fault = f"the connection failed ({hidden(reason(error), secrets)})"
        except BROKEN as error:
            fault = f"the transfer broke off ({hidden(reason(error), secrets)})"
        except DataError as error:
            transfer.forget()
            text = str(error).replace(str(unchecked), path.name).rstrip(".")
            raise PermanentFault(text) from None
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise DataError(
                    f"{path} cannot be written ({error.strerror or error}); check the folder."
                ) from None
            shutil.rmtree(folder, ignore_errors=True)
            raise DataError(
                f"{path.parent} has no room for {path.name} ({error.strerror}); free some space "
                "and run again."
            ) from None
        except ValueError as error:
            fault = f"the answer makes no sense ({hidden(first_line(error), secrets)})"
        finally:
            unchecked.unlink(missing_ok=True)
        log.info("%s: %s, attempt %d of %d", hidden(url, secrets), fault, attempt + 1, ATTEMPTS)
    raise PermanentFault(fault)


def _check_content(path: Path) -> None:
    """Refuse an archive that does not open, has damaged members, or members outside it."""
    if path.name.removesuffix(".unchecked").endswith(ARCHIVES):
        with open_source(path) as source:
            for name in source.names:
                with source.open(name) as member:
                    try:
                        while member.read(PIECE):
                            pass
                    except DAMAGE as error:
                        raise source.damaged(name, error) from None
