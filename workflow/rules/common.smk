# needs: the configuration
# gives: STUDY (the checked configuration), the names that wildcards may take, paths of cells

import contextlib
import io
import os
from functools import partial

from snakemake.cli import get_argument_parser
from snakemake.logging import logger

from equiscape import gpus
from equiscape.configuration import progress
from equiscape.configuration.local import check_local_files
from equiscape.configuration.parameters import refuse_unknown_names
from equiscape.configuration.printing import Shortened
from equiscape.configuration.tools import check_tools
from equiscape.data import CORRUPTED_VERSION
from equiscape.files import products
from equiscape.io import read_json
from equiscape.report import pages as reporting
from equiscape.report.edges import edge_sentences
from equiscape.report.manifest import Manifest
from equiscape.selection import only_setting
from equiscape.settings import plain
from equiscape.study import NUMBER

logger.addFilter(Shortened())

SCHEMA = BASE / "workflow/schemas/config.schema.yaml"
try:
    STUDY = start.study(
        config, SCHEMA, workflow.configfiles if workflow.modifier.is_main_snakefile() else []
    )
except ConfigError as error:
    raise WorkflowError(str(error)) from None


def requested_targets():
    """The targets of the command line, as Snakemake itself reads it."""
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        return [*get_argument_parser().parse_args(words[:end]).targets, *words[end + 1 :]]
    return []  # not started from a command line


def check_requested():
    """End with a sentence where no rule makes a requested target, or a source cannot be read."""
    made = {rule.name: [str(file) for file in rule.products()] for rule in workflow.rules}
    try:
        start.check_targets(sys.argv[1:], requested_targets, made, STUDY)
        check_local_files(STUDY)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def check_names(keep=True):
    """End with a sentence where a setting names a parameter that no network has."""
    try:
        refuse_unknown_names(STUDY, workflow.pathvars.apply("<resources>/networks"), keep)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def prepare_machine():
    """Before the first job: packages that it imports and parameters that settings name are there.

    GPUs of this machine get names.
    """
    own_environments = workflow.deployment_settings.deployment_method
    if not own_environments:
        used = {job.rule.name for job in workflow.dag.needrun_jobs()}
        needed = {
            str(rule.conda_env) for rule in workflow.rules if rule.name in used and rule.conda_env
        }
        folder = BASE / "envs"
        try:
            check_tools(folder / Path(name).name for name in sorted(needed))
        except ConfigError as error:
            raise WorkflowError(str(error)) from None
    check_names()
    limit = workflow.global_resources.get("gpu") if workflow.local_exec else None
    gpus.announce(getattr(limit, "value", limit), os.environ)


def gpus_of_a_job(wildcards):
    """1, or 0 where all jobs run on the CPU of this machine, so that its GPUs limit nothing."""
    return 0 if config["device"] == "cpu" and workflow.local_exec else 1


def warn_of_edges():
    """At the end of a run: every choice at an end of its grid, with the values to add."""
    lines = []
    for path in MANIFEST.products("selection"):
        path = workflow.pathvars.apply(str(path))
        if Path(path).exists():
            try:
                lines += edge_sentences(read_json(path, "selection"))
            except DataError as error:
                logger.warning(str(error))
    if lines:
        logger.warning(f"Choices at an edge of their grid, {len(lines)}:")
    for line in lines[:20]:
        logger.warning(f"  {line}")
    if len(lines) > 20:
        logger.warning(f"  and {len(lines) - 20} more: see {MANIFEST.results}/tables/selection.md.")


def one_of(names):
    """A wildcard constraint: exactly these names; without any, what nothing matches."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


wildcard_constraints:
    task=one_of(STUDY.tasks),
    optimizer=one_of(STUDY.optimizers),
    first=one_of(STUDY.optimizers),
    second=one_of(STUDY.optimizers),
    dataset=one_of(STUDY.datasets),
    lr=NUMBER.pattern,
    wd=NUMBER.pattern,
    seed="[0-9]+",
    epoch="[0-9]+",


# Relative, so that a study that is moved with its workflow is not rebuilt.
WORKFLOW = Path(os.path.relpath(BASE)) / "workflow"
REFERENCE = WORKFLOW / "reference"
REPORT_MODULES = sorted((WORKFLOW / "scripts/equiscape/report").rglob("*.py"))
REPORT_ASSETS = sorted((WORKFLOW / "scripts/equiscape/report/assets").glob("*"))
MANIFEST = Manifest.from_study(STUDY, "<results>", REFERENCE)
PAGES = reporting.pages(MANIFEST)
NOTEBOOKS = expand("<results>/notebooks/{name}.html", name=PAGES)

# optimizer -> (lr, wd) of a grid without another, which no cell is trained to choose
ONLY_SETTING = {
    name: setting
    for name in STUDY.optimizers
    if (setting := only_setting(STUDY.grid(name))) is not None
}
GRID_CELL = "<results>/grid/{task}_{optimizer}/lr{lr}_wd{wd}_seed{seed}"
FINAL_CELL = "<results>/final/{task}_{optimizer}/seed{seed}"


def grid_folders(task, optimizer):
    """The folder of every grid cell of a task and an optimizer."""
    return [
        GRID_CELL.format(task=task, optimizer=optimizer, lr=lr, wd=wd, seed=seed)
        for lr, wd, seed in STUDY.grid(optimizer)
    ]


def grid_cells(task, optimizer):
    """Metrics of every grid cell of a task and an optimizer that the choice needs."""
    if optimizer in ONLY_SETTING:
        return []
    return [f"{folder}/metrics.json" for folder in grid_folders(task, optimizer)]


def final_cells(task, optimizer, name="metrics.json"):
    """One file of every final cell of a task and an optimizer."""
    return expand(f"{FINAL_CELL}/{name}", task=task, optimizer=optimizer, seed=STUDY.seeds)


def snapshots():
    """Every snapshot that the study asks for."""
    return [
        f"{FINAL_CELL}/snapshots/epoch{epoch}.pt".format(task=task, optimizer=optimizer, seed=seed)
        for task, optimizer in STUDY.pairs
        for seed in STUDY.seeds
        for epoch in STUDY.snapshots(task)
    ]


def pairs(pattern):
    """``pattern`` for every (task, optimizer) of the study."""
    return [pattern.format(task=task, optimizer=optimizer) for task, optimizer in STUDY.pairs]


def prepared(wildcards):
    """The prepared data of a task."""
    return f"<resources>/prepared/{STUDY.dataset_of(wildcards.task)}.h5"


def loading_params(task, settings):
    """What a job needs to load a task, with the entry that ``settings`` gives for it."""
    dataset = STUDY.dataset_of(task)
    return {
        "name": task,
        "entry": settings(task),
        "dataset_name": dataset,
        "dataset_entry": STUDY.dataset_settings(dataset),
    }


def task_params(wildcards):
    """What a final cell needs to load its task."""
    settings = partial(STUDY.task_settings, optimizer=wildcards.optimizer)
    return loading_params(wildcards.task, settings)


def grid_task_params(wildcards):
    """As task_params, with the training settings of grid cells."""
    settings = partial(STUDY.task_settings, grid=True, optimizer=wildcards.optimizer)
    return loading_params(wildcards.task, settings)


def reference_ranks(wildcards):
    """The ranks of other optimizers that the constraints of a cell take; mostly none."""
    return [
        f"<results>/rank/{wildcards.task}_{source}.csv"
        for source in STUDY.ranks_of(wildcards.optimizer)
    ]


def cell_plugins(wildcards):
    """Files of plug-ins that a cell's network, data or optimizer come from."""
    return strings(STUDY.plugin_files(tasks=[wildcards.task], optimizers=[wildcards.optimizer]))


def task_resource(name, default):
    """A resource that a task may set for its own jobs, as a function of the wildcards."""
    return lambda wildcards: STUDY.resources(wildcards.task).get(name, default)


def escalating(name, default):
    """As task_resource, growing with the first retries: out of memory is retried with more.

    Not with every one: a cell that many time limits interrupt would outgrow its node.
    """

    def grown(wildcards, attempt):
        task = wildcards.get("task")  # a job about the whole study has none
        asked = STUDY.resources(task).get(name, default) if task else default
        return int(asked * (1 + 0.5 * min(attempt - 1, 3)))

    return grown


def raw(wildcards):
    """What preparation reads: the record of a download, the local files, or nothing."""
    if STUDY.is_remote(wildcards.dataset):
        return f"<resources>/raw/{wildcards.dataset}.json"
    made = f"<resources>/prepared/{wildcards.dataset}.h5"
    return unless_same(STUDY.local_files(wildcards.dataset), made)


def raw_corrupted(wildcards):
    """The same for corrupted clouds; generated ones are made from the prepared data."""
    name = wildcards.dataset
    if STUDY.is_remote(name, corrupted=True):
        return {"record": f"<resources>/raw/{name}-corrupted.json"}
    files = unless_same(STUDY.local_files(name, corrupted=True), f"<resources>/corrupted/{name}.h5")
    return {"files": files} if files else {"prepared": f"<resources>/prepared/{name}.h5"}


def unless_same(paths, made):
    """Source files, whose time counts unless ``made`` was made from the bytes that they have."""
    made = workflow.pathvars.apply(made)
    return [ancient(str(path)) if products.unchanged(made, path) else str(path) for path in paths]


def strings(paths):
    """Snakemake takes paths as strings."""
    return [str(path) for path in paths]
