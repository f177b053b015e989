# needs: <resources>/prepared/{dataset}.h5; checkpoints of the final cells; for the representative,
#        <results>/representative/{task}_{optimizer}.choice.json
# gives: for each analysis of the study, one result
#        <results>/{analysis}/{task}_{optimizer}.*                over the representative, its snapshots, or all final seeds
#        <results>/{analysis}/{task}_{optimizer}/seed{seed}.*     at every final seed, or over the snapshots of each
#        <results>/{analysis}/{task}_{first}_{second}.*           over two optimizers
#        <results>/{analysis}/study.*                             over the whole study

AT_EVERY_SEED = {"representative": "seed", "snapshots": "seed_snapshots"}
CHOICE = "<results>/representative/{task}_{optimizer}.choice.json"
SUBJECTS = {
    "representative": "{task}_{optimizer}",
    "final": "{task}_{optimizer}",
    "seed": "{task}_{optimizer}/seed{seed}",
    "snapshots": "{task}_{optimizer}",
    "seed_snapshots": "{task}_{optimizer}/seed{seed}",
    "pair": "{task}_{first}_{second}",
    "study": "study",
}


def result_files(analysis, subject):
    """The files of a result by name: the result itself, and its envelope if it is no JSON."""
    stem = f"<results>/{analysis}/{SUBJECTS[subject]}"
    suffix = STUDY.analyses[analysis].suffix
    files = {"result": stem + suffix}
    return files if suffix == ".json" else {**files, "envelope": f"{stem}.json"}


def analysis_targets(analysis):
    """Every result of an analysis."""
    over = STUDY.analyses[analysis].over
    tasks = STUDY.analyzed_tasks(analysis)
    subjects = [over, AT_EVERY_SEED[over]] if STUDY.at_every_seed(analysis) else [over]
    if over == "pair":
        pattern = result_files(analysis, over)["result"]
        return [
            pattern.format(task=task, first=first, second=second)
            for task in tasks
            for first, second in STUDY.optimizer_pairs
        ]
    names = {"task": tasks, "optimizer": STUDY.optimizers, "seed": STUDY.seeds}
    patterns = [result_files(analysis, subject)["result"] for subject in subjects]
    return expand(patterns, **names) if tasks else []


def tasks_of(wildcards, analysis):
    """The tasks that a result is about."""
    return [wildcards.task] if "task" in wildcards.keys() else STUDY.analyzed_tasks(analysis)


def optimizers_of(wildcards):
    """The optimizers that a result is about."""
    if "optimizer" in wildcards.keys():
        return [wildcards.optimizer]
    if "first" in wildcards.keys():
        return list(dict.fromkeys([wildcards.first, wildcards.second]))
    return list(STUDY.optimizers)


def subject_inputs(wildcards, analysis, subject):
    """Data, checkpoints and further products of a result; lists, empty where there are none."""
    tasks, optimizers = tasks_of(wildcards, analysis), optimizers_of(wildcards)
    files = {"choice": [], "checkpoints": [], "metrics": []}
    if subject == "representative":
        files["choice"] = [CHOICE.format(**wildcards)]
    elif subject == "seed":
        files["checkpoints"] = [f"{FINAL_CELL}/checkpoint.pt".format(**wildcards)]
        files["metrics"] = [f"{FINAL_CELL}/metrics.json".format(**wildcards)]
    elif subject in ("snapshots", "seed_snapshots"):
        # of every seed where the choice is not known before the job runs
        of_all = subject == "snapshots"
        cells = [
            FINAL_CELL.format(task=wildcards.task, optimizer=wildcards.optimizer, seed=seed)
            for seed in (STUDY.seeds if of_all else [wildcards.seed])
        ]
        files["choice"] = [CHOICE.format(**wildcards)] if of_all else []
        epochs = STUDY.snapshots(wildcards.task)
        files["checkpoints"] = [f"{c}/snapshots/epoch{e}.pt" for c in cells for e in epochs]
        files["metrics"] = [f"{cell}/metrics.json" for cell in cells]
    else:
        cells = [(task, optimizer) for task in tasks for optimizer in optimizers]
        files["checkpoints"] = [p for cell in cells for p in final_cells(*cell, "checkpoint.pt")]
        files["metrics"] = [p for cell in cells for p in final_cells(*cell)]
    files["data"] = [f"<resources>/prepared/{STUDY.dataset_of(task)}.h5" for task in tasks]
    for name in STUDY.analyses[analysis].inputs:
        files[name] = [f"<resources>/{name}/{STUDY.dataset_of(task)}.h5" for task in tasks]
    return files


# One rule an analysis; at every final seed, a second one copies the representative's result.
for name, analysis in STUDY.analyses.items():
    subject = analysis.over
    every_seed = STUDY.at_every_seed(name)
    if every_seed:
        subject = AT_EVERY_SEED[subject]

        rule:
            name:
                name
            input:
                unpack(
                    lambda wildcards, analysis=name: {
                        "choice": CHOICE.format(**wildcards),
                        **{
                            f"seed{seed}": result_files(analysis, "seed")["result"].format(
                                **wildcards, seed=seed
                            )
                            for seed in STUDY.seeds
                        },
                    }
                ),
            output:
                **result_files(name, "representative"),
            log:
                f"<logs>/{name}/{{task}}_{{optimizer}}.log",
            benchmark:
                f"<benchmarks>/{name}/{{task}}_{{optimizer}}.tsv"
            localrule: True
            conda:
                "../../envs/torch.yaml"
            script:
                "../scripts/pick_representative.py"

    rule:
        name:
            f"{name}_seed" if every_seed else name
        input:
            unpack(partial(subject_inputs, analysis=name, subject=subject)),
            plugin=lambda wildcards, analysis=name: strings(
                STUDY.plugin_files(analysis, tasks=tasks_of(wildcards, analysis))
            ),
        output:
            **result_files(name, subject),
        log:
            f"<logs>/{name}/{SUBJECTS[subject]}.log",
        benchmark:
            f"<benchmarks>/{name}/{SUBJECTS[subject]}.tsv"
        conda:
            "../../envs/torch.yaml"
        threads: config["threads"]
        resources:
            gpu=gpus_of_a_job,
            mem_mb=escalating("mem_mb", analysis.mem_mb),
            runtime=analysis.runtime,
            device=config["device"],
            resume=config["resume"],
        params:
            version=analysis.version,
            analysis=name,
            module=analysis.module,
            over=analysis.over,
            inputs=list(analysis.inputs),
            tasks=lambda wildcards, analysis=name: [
                loading_params(task, STUDY.analysis_task_settings)
                for task in tasks_of(wildcards, analysis)
            ],
            optimizers=optimizers_of,
            settings=lambda wildcards, analysis=name: STUDY.analysis(
                analysis, wildcards.get("task")
            ),
            execution=STUDY.analysis_execution(name),
        script:
            "../scripts/analyse.py"
