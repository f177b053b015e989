"""A data set from a URL: fetched once, checked, prepared; a bad archive leaves nothing."""

import hashlib
import json
import shutil

import h5py
import pytest
import yaml
from jsonschema import Draft202012Validator
from loopback_server import serving
from test_bad_inputs import modelnet_folder
from workspace import ROOT


@pytest.fixture
def archive(tmp_path_factory) -> bytes:
    """A zip archive in ModelNet40's layout."""
    root = tmp_path_factory.mktemp("archive")
    modelnet_folder(root / "clouds")
    return (root / shutil.make_archive(root / "clouds", "zip", root, "clouds")).read_bytes()


def from_url(workspace, url: str, sha256: str):
    workspace.config["datasets"]["shapes"] = {
        "kind": "pointcloud",
        "source": url,
        "sha256": sha256,
        "points": 32,
        "validation": 0.25,
    }


def test_a_download_is_recorded_and_prepared(workspace, archive):
    checksum = hashlib.sha256(archive).hexdigest()
    with serving({"clouds.zip": archive}) as server:
        from_url(workspace, server.url("plain/clouds.zip"), checksum)
        workspace.run("resources/prepared/shapes.h5")
        asked = len(server.requests)
        shutil.rmtree(workspace / "resources/prepared")
        workspace.run("resources/prepared/shapes.h5")
        assert len(server.requests) == asked, "downloaded again"
    record = json.loads((workspace / "resources/raw/shapes.json").read_text())
    schema = yaml.safe_load((ROOT / "workflow/schemas/download.schema.yaml").read_text())
    Draft202012Validator(schema).validate(record)
    assert record["sha256"] == checksum
    with h5py.File(workspace / "resources/prepared/shapes.h5") as file:
        assert file["points"].shape == (48, 64, 3)
        assert file.attrs["source_sha256"] == checksum


def test_a_wrong_checksum_is_one_sentence_and_leaves_nothing(workspace, archive):
    with serving({"clouds.zip": archive}) as server:
        from_url(workspace, server.url("plain/clouds.zip"), "0" * 64)
        output = workspace.run("resources/prepared/shapes.h5", ok=False)
    assert "clouds.zip" in output
    assert "Traceback" not in output
    assert not (workspace / "resources/raw/shapes.json").exists()
    assert not list((workspace / "resources").rglob("clouds.zip"))
