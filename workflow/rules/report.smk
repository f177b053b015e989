# needs: the metrics of the final cells, the analyses, the published figures (workflow/reference)
# gives: <results>/report.json, what the tables and notebooks compare
#        <results>/tables/*.csv, *.md and *.tex
#        <results>/notebooks/*.ipynb and *.html, <results>/figures/*.pdf and *.png
#        <results>/index.html, all of it on one page


TABLES = reporting.tables(MANIFEST)
TABLE_INPUTS = strings(reporting.table_inputs(MANIFEST))


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
        TABLE_INPUTS,
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
            for name in TABLES
        ],
        markdown=expand("<results>/tables/{name}.md", name=TABLES),
        latex=expand("<results>/tables/{name}.tex", name=TABLES),
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


rule index:
    input:
        TABLE_INPUTS,
        [
            strings(MANIFEST.products(name))
            for name in ("representative", "selection", "slice")
            if MANIFEST.products(name)
        ],
        rules.tables.output,
        expand(
            "<results>/figures/{figure}.png",
            figure=[f for page in PAGES.values() for f in page.outputs(MANIFEST)],
        ),
        NOTEBOOKS,
        manifest="<results>/report.json",
        modules=strings([*REPORT_MODULES, *REPORT_ASSETS]),
    output:
        report(
            "<results>/index.html",
            caption="../report/index.rst",
            category="The study on one page",
        ),
    log:
        "<logs>/index.log",
    benchmark:
        "<benchmarks>/index.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        protocol=1,
    script:
        "../scripts/write_index.py"


# One rule a page, since what a notebook reads and draws depends on which it is.
for name, page in PAGES.items():

    rule:
        name:
            f"notebook_{name}"
        input:
            strings(reporting.inputs(MANIFEST, name)),
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
