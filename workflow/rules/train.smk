# needs: <resources>/prepared/{dataset}.h5; for a final cell, <results>/selection/{task}_{optimizer}.choice.json;
#        where a constraint says ranks_of, the other optimizer's <results>/rank/{task}_{optimizer}.csv
# gives: <results>/grid/{task}_{optimizer}/lr{lr}_wd{wd}_seed{seed}/ metrics.json, history.csv
#        <results>/final/{task}_{optimizer}/seed{seed}/ metrics.json, history.csv, checkpoint.pt,
#        predictions.npz (of the test split), and snapshots/epoch{epoch}.pt there for each of a task's training.snapshots


rule train_grid_cell:
    input:
        data=prepared,
        plugins=cell_plugins,
        ranks=reference_ranks,
    output:
        metrics=f"{GRID_CELL}/metrics.json",
        history=f"{GRID_CELL}/history.csv",
    log:
        "<logs>/grid/{task}_{optimizer}/lr{lr}_wd{wd}_seed{seed}.log",
    benchmark:
        "<benchmarks>/grid/{task}_{optimizer}/lr{lr}_wd{wd}_seed{seed}.tsv"
    wildcard_constraints:
        task=one_of(task for task in STUDY.tasks if task not in STUDY.together),
    conda:
        "../../envs/torch.yaml"
    threads: config["threads"]
    resources:
        gpu=gpus_of_a_job,
        mem_mb=escalating("mem_mb", 8000),
        runtime=task_resource("runtime", 240),
        device=config["device"],
        # How a cell is executed changes nothing in its result, so it is no parameter.
        resume=config["resume"],
        resume_seconds=lambda wildcards: str(STUDY.execution(wildcards.task, "resume_seconds")),
        micro_batch=lambda wildcards: STUDY.execution(wildcards.task, "micro_batch") or 0,
    params:
        protocol=1,  # raise it where the meaning of a cell changes
        task=grid_task_params,
        optimizer=lambda wildcards: STUDY.optimizer_settings(wildcards.optimizer),
        lr="{lr}",
        wd="{wd}",
        seed="{seed}",
    script:
        "../scripts/train.py"


# One rule for each list of snapshots, since a rule's outputs are fixed: `train_final_cell` for the
# tasks without, train_final_cell_2 and so on for the others.
for number, (epochs, tasks) in enumerate(STUDY.snapshot_lists(), start=1):

    rule:
        name:
            "train_final_cell" if number == 1 else f"train_final_cell_{number}"
        input:
            data=prepared,
            plugins=cell_plugins,
            choice="<results>/selection/{task}_{optimizer}.choice.json",
            ranks=reference_ranks,
        output:
            metrics=f"{FINAL_CELL}/metrics.json",
            history=f"{FINAL_CELL}/history.csv",
            checkpoint=f"{FINAL_CELL}/checkpoint.pt",
            predictions=f"{FINAL_CELL}/predictions.npz",
            snapshots=[f"{FINAL_CELL}/snapshots/epoch{epoch}.pt" for epoch in epochs],
        log:
            "<logs>/final/{task}_{optimizer}/seed{seed}.log",
        benchmark:
            "<benchmarks>/final/{task}_{optimizer}/seed{seed}.tsv"
        wildcard_constraints:
            task=one_of(tasks),
        conda:
            "../../envs/torch.yaml"
        threads: config["threads"]
        resources:
            gpu=gpus_of_a_job,
            mem_mb=escalating("mem_mb", 8000),
            runtime=task_resource("runtime", 240),
            device=config["device"],
            resume=config["resume"],
            resume_seconds=lambda wildcards: str(STUDY.execution(wildcards.task, "resume_seconds")),
            micro_batch=lambda wildcards: STUDY.execution(wildcards.task, "micro_batch") or 0,
        params:
            protocol=1,
            task=task_params,
            optimizer=lambda wildcards: STUDY.optimizer_settings(wildcards.optimizer),
            lr=None,  # those of the choice, read when the job runs
            wd=None,
            seed="{seed}",
        script:
            "../scripts/train.py"
