# Equiscape: does the choice of optimizer change which solution a geometric network learns?
#
# needs: config.yaml, or another study given by --configfile (profiles/demo gives config/demo.yaml)
# gives: `all`, everything under <results>; `grid`, `selections`, `final`, `analyses` and `tables` are parts of it

from pathlib import Path

from snakemake.utils import min_version

min_version("9.19")


# One root a study: its logs and benchmarks lie beside its results.
pathvars:
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


# A study given on the command line takes the place of the paper's; merged, it would train both.
if "tasks" not in config:

    configfile: str(Path(workflow.basedir) / "config.yaml")  # wherever --directory points


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
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
