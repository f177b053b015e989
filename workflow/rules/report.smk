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
        manifest=plain(MANIFEST.to_dict()),
    script:
        "../scripts/write_manifest.py"


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
        "../scripts/write_tables.py"


# One rule a page, since what a notebook reads and draws depends on which it is.
for name, page in PAGES.items():

    rule:
        name:
            f"notebook_{name}"
        input:
            strings(page.inputs(MANIFEST)),
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
            pdf=expand("<results>/figures/{figure}.pdf", figure=page.outputs(MANIFEST)),
            png=[
                report(
                    f"<results>/figures/{figure}.png",
                    caption="../report/figure.rst",
                    category=entry["category"],
                    labels=entry["labels"],
                )
                for figure, entry in page.outputs(MANIFEST).items()
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
            protocol=2,
            captions=dict(page.figures),
            figures=lambda wildcards, output: Path(output.png[0]).parent,
        script:
            "../scripts/run_notebook.py"
