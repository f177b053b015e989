"""Pages in a headless Chromium without a network."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
if BROWSER is None:
    pytest.skip("no Chromium here: apt-get install chromium", allow_module_level=True)


def probed(page: Path, profile: Path, width: int, milliseconds: int) -> tuple[dict[str, Any], str]:
    """What a script of the page wrote into ``<pre id="probe">``, and the browser's own messages.

    Args:
        page: opened from its file.
        profile: a folder for the browser.
        width: of the window, in pixels.
        milliseconds: of the page's own clock, until it is read.
    """
    run = subprocess.run(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
            f"--window-size={width},1200", f"--virtual-time-budget={milliseconds}", "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True, encoding="utf-8", errors="replace", timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="probe">(.*?)</pre>', run.stdout, re.S)
    assert found, run.stderr[-2000:]
    return json.loads(html.unescape(found[1])), run.stderr
