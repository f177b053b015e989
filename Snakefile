# Equiscape: does the choice of optimizer change which solution a geometric network learns?
#
# needs: config.yaml, or another study given by --configfile (profiles/demo gives config/demo.yaml)
# gives: `all`, everything under <results>; `grid`, `selections`, `final`, `analyses` and `tables` are parts of it

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.19")


# One root a study: its logs and benchmarks lie beside its results.
pathvars:
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


# This file's own folder, and not the importer's where the workflow is a `module:` of another.
BASE = Path(str(workflow.current_basedir))
sys.path.insert(0, str(BASE / "workflow/scripts"))

from equiscape.configuration import start
from equiscape.errors import ConfigError, DataError

# A study given on the command line takes the place of the paper's; merged, it would train both.
if "tasks" not in config:
    if workflow.configfiles:
        try:
            start.refuse_part_of_a_study(config)
        except ConfigError as error:
            raise WorkflowError(str(error)) from None

    configfile: str(BASE / "config.yaml")  # wherever --directory points


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/together.smk"
include: "workflow/rules/select.smk"
include: "workflow/rules/analyses.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    grid,
    selections,
    final,
    analyses,


rule all:
    default_target: True
    input:
        rules.tables.output,
        NOTEBOOKS,
        "<results>/index.html",
        snapshots(),


rule grid:
    input:
        [cell for pair in STUDY.pairs for cell in grid_cells(*pair)],


rule selections:
    input:
        pairs("<results>/selection/{task}_{optimizer}.choice.json"),


rule final:
    input:
        [cell for pair in STUDY.pairs for cell in final_cells(*pair)],
        snapshots(),


rule analyses:
    input:
        [target for name in STUDY.analyses for target in analysis_targets(name)],


# A job of a cluster, or of another process, runs what this one checked.
if workflow.is_main_process and workflow.modifier.is_main_snakefile():
    check_requested()
    if workflow.output_settings.dryrun:  # a run looks in onstart, once the tools are there
        check_names(keep=False)
    progress.attach(logger, workflow.output_settings)


onsuccess:
    warn_of_edges()


onstart:
    if workflow.is_main_process:
        prepare_machine()
