"""Studies that come with the project, wherever their data are."""

from pathlib import Path
from typing import Any

import yaml


def shipped(path: Path) -> dict[str, Any]:
    """A study's configuration, with an address in the place of real data that may be absent."""
    config = yaml.safe_load(path.read_text())
    for entry in config["datasets"].values():
        if "../shared" in (entry.get("source") or ""):
            entry["source"] = "https://example.org/data.zip"
    return config
