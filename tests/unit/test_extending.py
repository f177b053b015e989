"""The examples of docs/extending.md do what the page says."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from equiscape import check
from equiscape.configuration import start
from equiscape.errors import ConfigError
from equiscape.settings import merge

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
PAGE = (ROOT / "docs/extending.md").read_text()
FILES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, flags=re.S))
STUDY = yaml.safe_load(re.findall(r"```yaml\n(datasets:.*?)```", PAGE, flags=re.S)[0])


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield [str(tmp_path)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name", ["mylab.nets:Radial", "mylab.relaxed:RelaxedEGNN", "mylab.molecules:PairNet"]
)
def test_the_networks_hold_the_contract(plugins, name):
    assert "parameters" in check.check_architecture(name, {"hidden": 16}, plugins)


def test_the_optimizer_holds_the_contract(plugins):
    assert "resumes" in check.check_optimizer("mylab.signs:Signs", {"momentum": 0.8}, plugins)


def test_the_data_set_is_prepared_and_loaded(plugins):
    assert "batches of 1 inputs" in check.check_dataset("mylab.rings", {"clouds": 30}, plugins)


def test_the_analysis_is_read(plugins):
    assert "over pair" in check.check_analysis("mylab.norms", {"order": 1}, plugins)


def test_the_study_is_accepted_and_its_faults_are_named(plugins):
    demo = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    config = merge(demo, STUDY, {"plugins": plugins})
    study = start.study(config, SCHEMA, root=ROOT)
    files = study.plugin_files(tasks=["relaxed"], optimizers=["signs"])
    assert [path.name for path in files] == ["relaxed.py", "signs.py"]
    assert [path.name for path in study.plugin_files("norms")] == ["norms.py"]
    assert [path.name for path in study.plugin_files(dataset="rings")] == ["rings.py"]
    faults = {
        r"tasks\.radial\.model\.bins: 64 must be at most 32": {"radial": {"model": {"bins": 64}}},
        r"tasks\.relaxed\.model: 'slak' .*'slack'": {"relaxed": {"model": {"slak": 1}}},
        r"tasks\.relaxed\.model\.slack: -1 must": {"relaxed": {"model": {"slack": -1}}},
        r"PairNet does not read data of kind 'procedural'": {"pairs": {"dataset": "shapes"}},
    }
    for message, tasks in faults.items():
        with pytest.raises(ConfigError, match=message):
            start.study(merge(config, {"tasks": tasks}), SCHEMA, root=ROOT)
