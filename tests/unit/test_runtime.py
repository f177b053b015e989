"""What a rule's script ends with: one sentence and a status, or a traceback for a bug."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from equiscape.configuration.progress import read_log
from equiscape.errors import ConfigError, DeviceError
from equiscape.runtime import conclude, job, keep_freed_memory, resolve_device


@pytest.fixture
def rule(tmp_path):
    """What Snakemake hands to a script."""
    return SimpleNamespace(log=[str(tmp_path / "logs/rule.log")], threads=1, rule="prepare")


def said(rule, capsys):
    with open(rule.log[0]) as log:
        return capsys.readouterr().err, log.read()


def test_an_error_on_purpose_is_one_sentence(rule, capsys):
    with pytest.raises(SystemExit) as ended, job(rule):
        raise ConfigError("training.epochs is missing.")
    assert ended.value.code == 1
    printed, logged = said(rule, capsys)
    assert printed == "prepare: training.epochs is missing.\n"
    assert logged.endswith("error: training.epochs is missing.\n")


def test_a_bug_keeps_its_traceback(rule, capsys):
    with pytest.raises(IndexError), job(rule):
        [][0]
    assert "IndexError" in said(rule, capsys)[1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence(rule, capsys):
    with pytest.raises(SystemExit), job(rule), open("/dev/full", "w") as disk:
        disk.write("x" * 100_000)
    printed, logged = said(rule, capsys)
    assert "No space left on device" in printed
    assert "--directory" in printed
    assert "Traceback" not in logged


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_under_hdf5_is_the_same_sentence(rule, capsys):
    with pytest.raises(SystemExit), job(rule), h5py.File("/dev/full", "w") as file:
        file["points"] = np.zeros(10**6)
        file.flush()
    assert "No space left on device" in said(rule, capsys)[0]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(13, "Permission denied", "/data/x.h5"),
            r"/data/x\.h5 cannot be used \(Perm",
        ),
        (OSError(30, "Read-only file system", "a.json"), r"a\.json cannot be used \(Read-only"),
        (RuntimeError("Unable to write (error message = 'Input/output error')"), r"refuses a file"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(rule, capsys, error, message):
    with pytest.raises(SystemExit) as ended, job(rule):
        raise error
    assert ended.value.code == 1
    printed, logged = said(rule, capsys)
    assert re.search(message, printed)
    assert printed.count("\n") == 1
    assert "Traceback" not in logged


@pytest.mark.parametrize("name", ["file/metrics.json", "x" * 250 + ".json"])
def test_outputs_are_tried_before_the_body_runs(rule, capsys, tmp_path, name):
    (tmp_path / "file").write_text("where a folder belongs")
    rule.output = [str(tmp_path / "fine/history.csv"), str(tmp_path / name)]
    with pytest.raises(SystemExit), job(rule):
        raise AssertionError("the body ran")
    printed, _ = said(rule, capsys)
    assert re.search(r"cannot be used \(.*\); check the path", printed)
    assert list((tmp_path / "fine").iterdir()) == []


def test_a_log_that_cannot_be_written_is_one_sentence(rule, capsys, tmp_path):
    (tmp_path / "logs").write_text("")
    with pytest.raises(SystemExit), job(rule):
        raise AssertionError("the body ran")
    assert "the log cannot be written: " in capsys.readouterr().err


def test_an_absent_file_is_still_a_bug(rule):
    with pytest.raises(FileNotFoundError), job(rule):
        Path("/nowhere/at/all").read_text()


def test_auto_never_passes_over_a_gpu_that_slurm_gave(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("this machine has a working GPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert resolve_device("auto").type == "cpu"  # no SLURM job
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(DeviceError, match="give the job a GPU or set `device: cpu`"):
        resolve_device("auto")
    assert resolve_device("cpu").type == "cpu"
    for nothing in ("", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
        assert resolve_device("auto").type == "cpu"


def test_a_log_says_which_job_ran_and_what_it_wrote(rule, tmp_path):
    rule.wildcards = {"task": "egnn", "optimizer": "muon"}
    rule.output = [str(tmp_path / "rank.csv")]
    with job(rule):
        conclude("48 rows")
    first, result, last = Path(rule.log[0]).read_text().splitlines()
    assert first.endswith("rule prepare, task egnn, optimizer muon")
    spent = r"\(CPU \d+\.\d\d s after \d+\.\d\d s of starting\)"
    assert re.search(rf"finished in \d+\.\d s {spent}; wrote {re.escape(rule.output[0])}$", last)
    said = read_log(rule.log[0])  # what the terminal shows of it
    assert (said.result, said.seconds) == ("48 rows", 0.0)
    assert result.endswith(" result: 48 rows")


FREED = """
import resource
from pathlib import Path
from equiscape.runtime import keep_freed_memory
if %s:
    assert keep_freed_memory()
import numpy as np
for step in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)  # 64 MB, above what glibc keeps by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own settings")
@pytest.mark.parametrize("kept", [True, False])
def test_freed_memory_is_used_again_without_new_pages(kept):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    faults = int(
        subprocess.run(
            [sys.executable, "-c", FREED % kept],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    pages = 2**26 // os.sysconf("SC_PAGESIZE")
    assert faults < pages / 100 if kept else faults > pages / 1000


def test_an_environment_that_sets_malloc_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    assert not keep_freed_memory()


def test_a_job_passes_over_what_it_imported_and_still_ends_in_order():
    program = (
        "import atexit, gc, weakref\n"
        "class Held: pass\n"
        "held = Held()\n"
        "weakref.finalize(held, print, 'finalized')\n"
        "atexit.register(print, 'registered')\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > made))\n"
        "from equiscape.runtime import spare_collections\n"
        "spare_collections()\n"
        "made = gc.get_freeze_count()\n"
        "kept = [[] for _ in range(100)]\n"
        "print(made > 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True", "registered", "finalized"]
