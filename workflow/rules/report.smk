# needs: the metrics of the final cells, the analyses, the published figures (workflow/reference)
# gives: <results>/report.json, what the tables and notebooks compare
#        <results>/tables/*.csv and *.md
#        <results>/notebooks/*.ipynb and *.html, <results>/figures/*.pdf and *.png


rule manifest:
    output:
        "<results>/report.json",
    log:
        "<logs>/manifest.log",
    benchmark:
        "<benchmarks>/manifest.tsv"
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        manifest=MANIFEST.to_dict(),
    script:
        "../scripts/manifest.py"


rule tables:
    input:
        strings(reporting.table_inputs(MANIFEST)),
        manifest="<results>/report.json",
        reference=strings(sorted(REFERENCE.glob("*.csv"))),
        modules=strings(REPORT_MODULES),
    output:
        csv=[
            report(
                f"<results>/tables/{name}.csv",
                caption="../report/tables.rst",
                category="Tables",
                labels={"table": name},
            )
            for name in reporting.tables(MANIFEST)
        ],
        markdown=expand("<results>/tables/{name}.md", name=reporting.tables(MANIFEST)),
    log:
        "<logs>/tables.log",
    benchmark:
        "<benchmarks>/tables.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        protocol=1,
    script:
        "../scripts/tables.py"


# One rule a notebook, since what a notebook reads and draws depends on which it is.
for name in reporting.notebooks(MANIFEST):

    rule:
        name:
            f"notebook_{name}"
        input:
            strings(reporting.notebook_inputs(MANIFEST, name)),
            notebook=f"{WORKFLOW}/notebooks/{name}.py",
            template=f"{WORKFLOW}/notebooks/template/index.html.j2",
            manifest="<results>/report.json",
            reference=strings(sorted(REFERENCE.glob("*.csv"))),
            modules=strings(REPORT_MODULES),
        output:
            ipynb=f"<results>/notebooks/{name}.ipynb",
            html=report(
                f"<results>/notebooks/{name}.html",
                caption="../report/notebook.rst",
                category="Notebooks",
                labels={"notebook": name},
            ),
            pdf=expand(
                "<results>/figures/{figure}.pdf",
                figure=reporting.notebook_figures(MANIFEST, name),
            ),
            png=[
                report(
                    f"<results>/figures/{figure}.png",
                    **report_entry(reporting.figure_entry(name, figure)),
                )
                for figure in reporting.notebook_figures(MANIFEST, name)
            ],
        log:
            f"<logs>/notebooks/{name}.log",
        benchmark:
            f"<benchmarks>/notebooks/{name}.tsv"
        conda:
            "../../envs/report.yaml"
        resources:
            mem_mb=2000,
            runtime=20,
        params:
            protocol=1,
            library=lambda wildcards: str(WORKFLOW / "scripts"),
            figures=lambda wildcards, output: Path(output.png[0]).parent,
        shell:
            "(export PYTHONPATH={params.library:q} && "
            "jupytext --quiet --to ipynb --output - {input.notebook:q} | "
            "papermill --kernel python3 --cwd . --log-output --no-progress-bar"
            " -p manifest {input.manifest:q} -p figures {params.figures:q} - {output.ipynb:q} && "
            "jupyter nbconvert --to html --template $(dirname {input.template:q})"
            " {output.ipynb:q}"
            ") > {log} 2>&1"
