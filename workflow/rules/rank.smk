# needs: <results>/representative/{task}_{optimizer}.json and the checkpoint that it names
# gives: <results>/rank/{task}_{optimizer}.csv, stable and effective ranks, one row a matrix


rule rank:
    input:
        data=prepared,
        representative="<results>/representative/{task}_{optimizer}.json",
        checkpoints=lambda wildcards: final_cells(
            wildcards.task, wildcards.optimizer, "checkpoint.pt"
        ),
    output:
        "<results>/rank/{task}_{optimizer}.csv",
    log:
        "<logs>/rank/{task}_{optimizer}.log",
    benchmark:
        "<benchmarks>/rank/{task}_{optimizer}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=1,
        mem_mb=escalating("mem_mb", 8000),
        runtime=60,
        device=config["device"],
    params:
        protocol=1,
        task=analysis_task_params,
        settings=lambda wildcards: STUDY.analysis("rank", wildcards.task),
    script:
        "../scripts/rank.py"
