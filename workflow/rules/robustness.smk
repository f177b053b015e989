# needs: <resources>/prepared/{dataset}.h5 or the published arrays; the final cells' checkpoints
# gives: <resources>/raw/{dataset}-corrupted.json, what was downloaded
#        <resources>/corrupted/{dataset}.h5, the corrupted test clouds
#        <results>/robustness/{task}_{optimizer}.csv, accuracy for each seed, corruption, severity


use rule download as download_corrupted with:
    output:
        "<resources>/raw/{dataset}-corrupted.json",
    log:
        "<logs>/download/{dataset}-corrupted.log",
    benchmark:
        "<benchmarks>/download/{dataset}-corrupted.tsv"
    params:
        entry=lambda wildcards: STUDY.download_settings(wildcards.dataset, corrupted=True),


rule corrupt:
    input:
        unpack(raw_corrupted),
    output:
        "<resources>/corrupted/{dataset}.h5",
    log:
        "<logs>/corrupt/{dataset}.log",
    benchmark:
        "<benchmarks>/corrupt/{dataset}.tsv"
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=60,
    params:
        protocol=1,
        version=CORRUPTED_VERSION,
        source=lambda wildcards: STUDY.local_source(wildcards.dataset, corrupted=True),
        entry=lambda wildcards: STUDY.corruption_settings(wildcards.dataset),
    script:
        "../scripts/corrupt.py"


rule robustness:
    input:
        data=prepared,
        corrupted=corrupted,
        metrics=lambda wildcards: final_cells(wildcards.task, wildcards.optimizer),
        checkpoints=lambda wildcards: final_cells(
            wildcards.task, wildcards.optimizer, "checkpoint.pt"
        ),
    output:
        "<results>/robustness/{task}_{optimizer}.csv",
    log:
        "<logs>/robustness/{task}_{optimizer}.log",
    benchmark:
        "<benchmarks>/robustness/{task}_{optimizer}.tsv"
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
    script:
        "../scripts/robustness.py"
