# needs: <results>/representative/{task}_{optimizer}.json and the checkpoint that it names
# gives: <results>/slice/{task}_{optimizer}.h5, the loss on a filter-normalised plane


rule slice:
    input:
        data=prepared,
        representative="<results>/representative/{task}_{optimizer}.json",
        checkpoints=lambda wildcards: final_cells(
            wildcards.task, wildcards.optimizer, "checkpoint.pt"
        ),
    output:
        "<results>/slice/{task}_{optimizer}.h5",
    log:
        "<logs>/slice/{task}_{optimizer}.log",
    benchmark:
        "<benchmarks>/slice/{task}_{optimizer}.tsv"
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
        settings=lambda wildcards: STUDY.analysis("slice", wildcards.task),
    script:
        "../scripts/slice.py"
