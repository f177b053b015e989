"""Jobs on one machine get one GPU each; a killed one gives it back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from snakemake.profiles import ProfileConfigFileParser

from equiscape import gpus
from equiscape.errors import DeviceError

JOB = """
import os, sys, time
from pathlib import Path
from equiscape import gpus
with gpus.assigned(True, Path(sys.argv[1])) as name:
    print(name, os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start(folder: Path, seconds: float, slots: str = "0,1") -> subprocess.Popen:
    """A job that holds a GPU for ``seconds``."""
    library = Path(gpus.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(library), gpus.VARIABLE: slots}
    command = [sys.executable, "-c", JOB, str(folder), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("", []),
        ("0", ["0"]),
        ("2,3", ["2", "3"]),
        ("1,-1,2", ["1"]),  # as CUDA reads it
        ("NoDevFiles", []),
        ("GPU-8932f937-d72c", ["GPU-8932f937-d72c"]),
        ("MIG-GPU-8932f937/1/2", ["MIG-GPU-8932f937/1/2"]),
    ],
)
def test_gpus_are_those_that_cuda_would_see(monkeypatch, named, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible() == found


@pytest.mark.parametrize(
    ("limit", "slots"), [(None, ""), (1, "4,7"), (2, "4,7"), (3, "4,7,4"), (4, "4,7,4,7")]
)
def test_jobs_beyond_the_gpus_share_them_evenly(monkeypatch, limit, slots):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    environment = {gpus.VARIABLE: "left over"}
    gpus.announce(limit, environment)
    assert environment.get(gpus.VARIABLE, "") == slots


def test_a_machine_without_gpus_announces_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    environment: dict[str, str] = {}
    assert gpus.announce(1, environment) == []
    assert environment == {}


def test_two_jobs_at_once_see_a_gpu_each_and_a_killed_one_frees_its_own(tmp_path):
    first, second = start(tmp_path, 60), start(tmp_path, 60)
    try:
        names = [job.stdout.readline().split() for job in (first, second)]
        assert sorted(names) == [["0", "0"], ["1", "1"]]
        third = start(tmp_path, 0)
        time.sleep(0.5)
        assert third.poll() is None  # it waits
        first.send_signal(signal.SIGKILL)
        assert third.communicate(timeout=20)[0].split() == names[0]
    finally:
        for job in (first, second):
            job.kill()
            job.communicate()


def test_a_job_without_a_gpu_takes_none_and_leaves_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(gpus.VARIABLE, "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with gpus.assigned(False, tmp_path) as name:
        assert name is None
    assert list(tmp_path.iterdir()) == []
    with gpus.assigned(True, tmp_path) as name:
        assert (name, os.environ["CUDA_VISIBLE_DEVICES"]) == ("0", "0")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_folder_that_cannot_be_used_ends_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv(gpus.VARIABLE, "0")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(DeviceError, match="TMPDIR"), gpus.assigned(True):
        pass
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "0.0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeviceError, match="TMPDIR"), gpus.assigned(True, planted):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("named", "limit"), [("", None), ("-1", None), ("3", 1), ("0, 1,2", 3)])
def test_the_local_profile_counts_the_gpus(monkeypatch, named, limit):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with open(Path(__file__).resolve().parents[2] / "profiles/local/profile.yaml") as file:
        profile = ProfileConfigFileParser().parse(file)
    assert profile.get("resources") == (None if limit is None else [f"gpu={limit}"])
    assert profile["cores"] == "all"
