"""What makes prepared data stale: the bytes that a kind reads, and nothing else in their folder."""

import json
import os
import shutil
import time

import h5py
import pytest
from test_bad_inputs import modelnet_folder

TARGET = "resources/prepared/shapes.h5"


@pytest.fixture
def prepared(workspace):
    """A prepared data set whose source is a folder or, renamed, an archive of it."""
    modelnet_folder(workspace / "clouds")
    entry = {"kind": "pointcloud", "source": "clouds", "points": 32, "validation": 0.25}
    workspace.config["datasets"]["shapes"] = entry
    return workspace


def later(path):
    """Give a file a time of change after everything else's."""
    moment = time.time() + 5
    os.utime(path, (moment, moment))


def test_other_files_and_touched_ones_prepare_nothing(prepared):
    prepared.run(TARGET)
    record = json.loads((prepared / "resources/prepared/shapes.json").read_text())
    assert len(record["sources"]) == 5
    (prepared / "clouds/.DS_Store").write_bytes(b"Finder was here")
    (prepared / "clouds/notes.txt").write_text("nothing that is read")
    later(prepared / "clouds/.DS_Store")
    later(prepared / "clouds/ply_data_train0.h5")
    assert prepared.planned(TARGET) == {}
    with h5py.File(prepared / "clouds/ply_data_train0.h5", "r+") as file:
        file["data"][0, 0, 0] = 0.5  # the same size, other bytes
    later(prepared / "clouds/ply_data_train0.h5")
    assert prepared.planned(TARGET) == {"prepare": 1}


def test_a_touched_archive_prepares_nothing(prepared):
    archive = shutil.make_archive(prepared / "clouds", "zip", prepared.folder, "clouds")
    prepared.config["datasets"]["shapes"]["source"] = "clouds.zip"
    prepared.run(TARGET)
    later(archive)
    assert prepared.planned(TARGET) == {}
    with open(archive, "ab") as file:
        file.write(b"\0")
    later(archive)
    assert prepared.planned(TARGET) == {"prepare": 1}


def test_a_damaged_prepared_file_is_named_by_the_job_that_reads_it(prepared):
    prepared.run(TARGET)
    path = prepared / TARGET
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    output = prepared.run("results/grid/pointnet_adam/lr1e-3_wd1e-2_seed0/metrics.json", ok=False)
    assert "shapes.h5 is damaged" in output
    assert "--forcerun prepare" in output
    assert "Traceback" not in output
