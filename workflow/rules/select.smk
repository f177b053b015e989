# needs: the metrics of the grid cells, where a grid has more than one (lr, wd); the metrics of the final cells
# gives: <results>/selection/{task}_{optimizer}.json, the chosen lr and wd with the whole grid
#        <results>/selection/{task}_{optimizer}.choice.json, the two alone: what final cells depend on
#        <results>/representative/{task}_{optimizer}.json, the seed nearest the mean score
#        <results>/representative/{task}_{optimizer}.choice.json, that seed alone: what analyses depend on


rule select:
    input:
        lambda wildcards: grid_cells(wildcards.task, wildcards.optimizer),
    output:
        selection="<results>/selection/{task}_{optimizer}.json",
        choice="<results>/selection/{task}_{optimizer}.choice.json",
    log:
        "<logs>/selection/{task}_{optimizer}.log",
    benchmark:
        "<benchmarks>/selection/{task}_{optimizer}.tsv"
    wildcard_constraints:
        optimizer=one_of(name for name in STUDY.optimizers if name not in ONLY_SETTING),
    localrule: True  # a second of arithmetic, not worth a place in a queue
    conda:
        "../../envs/torch.yaml"
    params:
        protocol=1,
    script:
        "../scripts/select_cell.py"


# A grid of one (lr, wd): nothing is trained to choose from it.
rule only_setting:
    output:
        selection="<results>/selection/{task}_{optimizer}.json",
        choice="<results>/selection/{task}_{optimizer}.choice.json",
    log:
        "<logs>/selection/{task}_{optimizer}.log",
    benchmark:
        "<benchmarks>/selection/{task}_{optimizer}.tsv"
    wildcard_constraints:
        optimizer=one_of(ONLY_SETTING),
    localrule: True
    conda:
        "../../envs/torch.yaml"
    params:
        protocol=1,
        setting=lambda wildcards: list(ONLY_SETTING[wildcards.optimizer]),
    script:
        "../scripts/only_setting.py"


rule representative:
    input:
        metrics=lambda wildcards: final_cells(wildcards.task, wildcards.optimizer),
        checkpoints=lambda wildcards: final_cells(
            wildcards.task, wildcards.optimizer, "checkpoint.pt"
        ),
    output:
        representative="<results>/representative/{task}_{optimizer}.json",
        choice="<results>/representative/{task}_{optimizer}.choice.json",
    log:
        "<logs>/representative/{task}_{optimizer}.log",
    benchmark:
        "<benchmarks>/representative/{task}_{optimizer}.tsv"
    localrule: True  # a second of arithmetic, not worth a place in a queue
    conda:
        "../../envs/torch.yaml"
    params:
        protocol=1,
    script:
        "../scripts/representative.py"
