# needs: datasets.{dataset}.source: a URL, a local archive or folder, or nothing for embedded data
# gives: <resources>/raw/{dataset}.json, what was downloaded, where, with its checksum
#        <resources>/prepared/{dataset}.h5, samples, targets and splits in one file, and its record
#        <resources>/raw/{dataset}-corrupted.json, what was downloaded of the corrupted clouds
#        <resources>/corrupted/{dataset}.h5, the corrupted test clouds, and their record


rule download:
    output:
        "<resources>/raw/{dataset}.json",
    log:
        "<logs>/download/{dataset}.log",
    benchmark:
        "<benchmarks>/download/{dataset}.tsv"
    retries: 2
    localrule: True  # the login node has a network, compute nodes often have none
    conda:
        "../../envs/torch.yaml"
    resources:
        least_speed=lambda wildcards: STUDY.least_speed(wildcards.dataset),
    params:
        protocol=1,
        entry=lambda wildcards: STUDY.download_settings(wildcards.dataset),
        folder=lambda wildcards, output: Path(output[0]).with_suffix(""),
    script:
        "../scripts/download.py"


rule prepare:
    input:
        raw,
        plugins=lambda wildcards: strings(STUDY.plugin_files(dataset=wildcards.dataset)),
    output:
        "<resources>/prepared/{dataset}.h5",
        "<resources>/prepared/{dataset}.json",
    log:
        "<logs>/prepare/{dataset}.log",
    benchmark:
        "<benchmarks>/prepare/{dataset}.tsv"
    conda:
        "../../envs/torch.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=60,
    params:
        protocol=1,
        version=lambda wildcards: STUDY.preparation_version(wildcards.dataset),
        name="{dataset}",
        source=lambda wildcards: STUDY.local_source(wildcards.dataset),
        entry=lambda wildcards: STUDY.preparation_settings(wildcards.dataset),
    script:
        "../scripts/prepare.py"


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
        "<resources>/corrupted/{dataset}.json",
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
