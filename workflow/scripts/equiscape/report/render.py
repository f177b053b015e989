"""The child process of :mod:`equiscape.report.notebook`: from a percent script to a page.

    python -m equiscape.report.render SOURCE TEMPLATE IPYNB HTML NAME=VALUE...

One process for all three steps, since each tool by itself spends more time on its imports than on
its work. The notebook's cells run in a kernel of their own.
"""

import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from equiscape.runtime import spare_collections

INJECTED = "injected-parameters"


class Client(NotebookClient):
    """Runs a notebook and prints what its cells print, for the log."""

    def process_message(self, msg, cell, cell_index):
        """Print the text of a stream as it comes; the output is kept as always."""
        if msg["msg_type"] == "stream":
            print(msg["content"]["text"], end="", flush=True)
        return super().process_message(msg, cell, cell_index)


def parameterized(notebook: nbformat.NotebookNode, parameters: dict[str, str]) -> None:
    """Insert a cell that sets ``parameters`` behind the cell that is tagged ``parameters``.

    Raises:
        ValueError: no cell has that tag.
    """
    tagged = [
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())
    ]
    if not tagged:
        raise ValueError("the notebook has no cell with the tag parameters")
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]
    cell = nbformat.v4.new_code_cell(
        "\n".join(lines),
        id=INJECTED,  # the same in every run
        metadata={"tags": [INJECTED]},
    )
    notebook.cells.insert(tagged[0] + 1, cell)


def failed_cell(notebook: nbformat.NotebookNode) -> int:
    """The number of the first cell that ended with an error, among the script's code cells."""
    number = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            number += cell.get("id") != INJECTED
            if any(output.output_type == "error" for output in cell.outputs):
                break
    return number


def main(source: str, template: str, ipynb: str, html: str, *pairs: str) -> int:
    """Execute a percent script and write the notebook and its page; 1 where a cell failed."""
    spare_collections()
    notebook = jupytext.read(source)
    parameterized(notebook, dict(pair.split("=", 1) for pair in pairs))
    client = Client(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": os.getcwd()}},
        shutdown_kernel="immediate",  # its figures are written; to take it down in order takes long
    )
    try:
        client.execute()
    except CellExecutionError as error:
        print(error)
        said = (error.evalue.strip().splitlines() or [""])[0]
        print(f"in code cell {failed_cell(notebook)}, {error.ename}: {said}")
        return 1
    nbformat.write(notebook, ipynb)
    folder = Path(template)
    exporter = HTMLExporter(
        template_name=folder.name, extra_template_basedirs=[str(folder.parent.resolve())]
    )
    page, _ = exporter.from_notebook_node(
        notebook, resources={"metadata": {"name": Path(ipynb).stem}}
    )
    Path(html).write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
