"""The workflow as a Snakemake `module:` of another workflow."""

import yaml
from workspace import ROOT

CELL = "results/grid/pointnet_muon/lr1e-3_wd1e-2_seed0"


def test_another_workflow_trains_a_cell_under_a_prefix(workspace):
    (workspace / "tiny.yaml").write_text(yaml.safe_dump(workspace.config))
    (workspace / "Snakefile").write_text(
        "import yaml\n"
        "module equiscape:\n"
        f"    snakefile: {str(ROOT / 'Snakefile')!r}\n"
        "    config: yaml.safe_load(open('tiny.yaml'))\n"
        "    prefix: 'sub'\n"
        "use rule * from equiscape as equiscape_*\n"
    )
    workspace.run(f"sub/{CELL}/metrics.json", options=["--snakefile", "Snakefile"])
    assert (workspace / f"sub/{CELL}/metrics.json").is_file()
    assert not (workspace / "results").exists()
