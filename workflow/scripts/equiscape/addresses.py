"""Addresses of data: what can be fetched, and what in them no message repeats."""

import re
from urllib.parse import urlsplit

from equiscape.errors import ConfigError

SECRET = re.compile(
    r"([?&;](?:[\w-]*(?:token|key|secret|password|signature|credential|auth)[\w-]*|sig|pwd)=)[^&;\s]+",
    re.IGNORECASE,
)
USER = re.compile(r"(\w+://)[^/\s@]+@")
VARIABLE = re.compile(r"\$\{(\w+)\}")


def redact(text: str) -> str:
    """``text`` without passwords and tokens of the addresses in it, or values of variables."""
    return SECRET.sub(r"\1***", USER.sub(r"\1***@", text))


def check_address(url: str, key: str) -> None:
    """Refuse an address that cannot be fetched, or that carries a secret in plain text.

    It would stand in the configuration, in logs and in what Snakemake keeps of a job.

    Raises:
        ConfigError: naming ``key``.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, a bracket that is not closed
        known = False
    if not known or re.search(r"\s", url):
        raise ConfigError(
            f"{key}: {redact(url)} is not an http address; give a local file by its plain path."
        )
    secrets = [m[0] for m in SECRET.finditer(url) if not VARIABLE.fullmatch(m[0][len(m[1]) :])]
    if parts.password or secrets:
        raise ConfigError(
            f"{key}: {redact(url)} holds a password or a token; give the user and the password in "
            "~/.netrc, or the token as ${NAME} of an environment variable."
        )
