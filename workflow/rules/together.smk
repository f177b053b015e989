# needs: <resources>/prepared/{dataset}.h5; for final cells, <results>/selection/{task}_{optimizer}.choice.json
# gives: the files of train.smk for the tasks with training.together, all cells of a task and an optimizer in one job:
#        cells of seconds would wait longer for their processes than they train

# One rule an optimizer, since its grid is part of the outputs' names.
for optimizer in STUDY.optimizers:

    rule:
        name:
            f"train_grid_together_{re.sub('[^a-z0-9]', '_', optimizer)}"
        input:
            data=prepared,
            plugins=lambda wildcards, optimizer=optimizer: strings(
                STUDY.plugin_files(tasks=[wildcards.task], optimizers=[optimizer])
            ),
        output:
            metrics=[f"{cell}/metrics.json" for cell in grid_folders("{task}", optimizer)],
            history=[f"{cell}/history.csv" for cell in grid_folders("{task}", optimizer)],
        log:
            f"<logs>/grid/{{task}}_{optimizer}/together.log",
        benchmark:
            f"<benchmarks>/grid/{{task}}_{optimizer}/together.tsv"
        wildcard_constraints:
            task=one_of(STUDY.together),
        conda:
            "../../envs/torch.yaml"
        threads: config["threads"]
        resources:
            gpu=gpus_of_a_job,
            mem_mb=escalating("mem_mb", 8000),
            runtime=task_resource("runtime", 240),
            device=config["device"],
        params:
            protocol=1,  # raise it where the meaning of a cell changes
            task=lambda wildcards, optimizer=optimizer: loading_params(
                wildcards.task, partial(STUDY.task_settings, grid=True, optimizer=optimizer)
            ),
            optimizer_name=optimizer,
            optimizer=STUDY.optimizer_settings(optimizer),
            cells=[list(cell) for cell in STUDY.grid(optimizer)],
        script:
            "../scripts/train_together.py"


# One rule for each list of snapshots, as in train.smk.
for number, (epochs, tasks) in enumerate(STUDY.snapshot_lists(together=True), start=1):

    rule:
        name:
            "train_final_together" if number == 1 else f"train_final_together_{number}"
        input:
            data=prepared,
            choice="<results>/selection/{task}_{optimizer}.choice.json",
            plugins=cell_plugins,
        output:
            metrics=expand(f"{FINAL_CELL}/metrics.json", seed=STUDY.seeds, allow_missing=True),
            history=expand(f"{FINAL_CELL}/history.csv", seed=STUDY.seeds, allow_missing=True),
            checkpoint=expand(f"{FINAL_CELL}/checkpoint.pt", seed=STUDY.seeds, allow_missing=True),
            predictions=expand(
                f"{FINAL_CELL}/predictions.npz", seed=STUDY.seeds, allow_missing=True
            ),
            snapshots=expand(
                f"{FINAL_CELL}/snapshots/epoch{{epoch}}.pt",
                seed=STUDY.seeds,
                epoch=epochs,
                allow_missing=True,
            ),
        log:
            "<logs>/final/{task}_{optimizer}/together.log",
        benchmark:
            "<benchmarks>/final/{task}_{optimizer}/together.tsv"
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
        params:
            protocol=1,
            task=task_params,
            optimizer_name="{optimizer}",
            optimizer=lambda wildcards: STUDY.optimizer_settings(wildcards.optimizer),
            cells=[[None, None, seed] for seed in STUDY.seeds],  # lr and wd are those of the choice
        script:
            "../scripts/train_together.py"
