"""Run a notebook in an environment of its own, whatever the user's or the site's looks like.

Jupyter, IPython and matplotlib read configuration, kernels, templates and styles from a dozen
folders and variables. A notebook of the report must not depend on any of them, so its child
processes get private folders, UTF-8 and this interpreter as the only kernel.
"""

import json
import logging
import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from equiscape.errors import EquiscapeError
from equiscape.io import atomic_path

log = logging.getLogger("equiscape")

LIBRARY = Path(__file__).resolve().parents[2]
INHERITED = (
    "JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "MATPLOTLIBRC", "PYTHONSTARTUP", "PYTHONHOME",
    "PYTHONIOENCODING", "PYTHONWARNINGS", "PYTHONINSPECT",
)  # fmt: skip
"""Variables of the user or site that change what a notebook does; they are not passed on."""
TOOLS = ("jupytext", "nbformat", "nbclient", "nbconvert", "ipykernel")


def environment(folder: Path, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for the child processes of a notebook, with private folders below ``folder``.

    ``PYTHONPATH`` is extended, not replaced: a site may need its own. User packages
    (``pip install --user``) stay importable although HOME moves.

    Args:
        folder: an empty writable folder.
        inherited: the variables to start from, ``os.environ`` by default.
    """
    inherited = os.environ if inherited is None else inherited
    variables = {key: value for key, value in inherited.items() if key not in INHERITED}
    paths = [str(LIBRARY), *filter(None, [inherited.get("PYTHONPATH")])]
    variables |= {
        "HOME": str(folder),
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUTF8": "1",
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_NO_CONFIG": "1",
        "JUPYTER_PREFER_ENV_PATH": "0",  # the kernel in JUPYTER_DATA_DIR comes first
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_DATA_HOME": str(folder / "data"),
    }
    for name in ("config", "data", "runtime", "ipython", "matplotlib", "cache"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    kernel = folder / "data" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(
        json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}),
        encoding="utf-8",
    )
    return variables


def execute(
    source: str | Path,
    template: str | Path,
    ipynb: str | Path,
    html: str | Path,
    parameters: Mapping[str, str],
) -> None:
    """Execute a percent script as a notebook and make a page of it.

    Everything happens in a temporary folder under plain names, whatever the paths of the study
    hold; the two files are moved to their places at the end.

    Args:
        source: the notebook as a jupytext percent script.
        template: folder of the nbconvert template.
        ipynb, html: where the executed notebook and its page go.
        parameters: of the cell tagged ``parameters``; taken as text, whatever they look like.

    Raises:
        EquiscapeError: a tool is missing or the notebook failed; its output is in the log.
    """
    with tempfile.TemporaryDirectory(prefix="equiscape-") as name:
        folder = Path(name)
        variables = environment(folder / "home")
        shutil.copyfile(source, folder / "source.py")
        shutil.copytree(template, folder / "template")
        notebook, page = folder / "notebook.ipynb", folder / "notebook.html"
        arguments = [folder / "source.py", folder / "template", notebook, page]
        pairs = [f"{name}={value}" for name, value in parameters.items()]
        _render([*map(str, arguments), *pairs], variables, Path(source).stem)
        for made, place in ((notebook, ipynb), (page, html)):
            with atomic_path(place) as temporary:
                shutil.copyfile(made, temporary)


def _render(arguments: list[str], variables: dict[str, str], name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "equiscape.report.render", *arguments],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    for line in done.stdout.splitlines():
        log.info("%s", line)
    if done.returncode == 0:
        return
    missing = re.search(r"No module named '?([\w.]+)", done.stdout)
    if missing and missing[1].partition(".")[0] in TOOLS:
        raise EquiscapeError(
            f"{missing[1]} is not installed beside {sys.executable}; install it (requirements.txt, "
            "or envs/report.yaml with --sdm conda) and run the same command again."
        )
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    reason = lines[-1] if lines else f"its process ended with status {done.returncode}"
    raise EquiscapeError(f"the notebook {name} failed: {reason}")
