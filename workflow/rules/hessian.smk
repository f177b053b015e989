# needs: <results>/representative/{task}_{optimizer}.json and the checkpoint that it names
# gives: <results>/hessian/{task}_{optimizer}.json, eigenvalues with residuals and the trace with its standard error


rule hessian:
    input:
        data=prepared,
        representative="<results>/representative/{task}_{optimizer}.json",
        checkpoints=lambda wildcards: final_cells(
            wildcards.task, wildcards.optimizer, "checkpoint.pt"
        ),
    output:
        "<results>/hessian/{task}_{optimizer}.json",
    log:
        "<logs>/hessian/{task}_{optimizer}.log",
    benchmark:
        "<benchmarks>/hessian/{task}_{optimizer}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=1,
        mem_mb=escalating("mem_mb", 8000),
        runtime=240,
        device=config["device"],
    params:
        protocol=1,
        task=analysis_task_params,
        settings=lambda wildcards: STUDY.analysis("hessian", wildcards.task),
    script:
        "../scripts/hessian.py"
