"""Local sources that cannot be read end in one sentence before the first job."""

import copy
import os
from pathlib import Path

import pytest
import yaml

from equiscape.configuration import local, start
from equiscape.errors import ConfigError, DataError
from equiscape.files import archives

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
DEMO = yaml.safe_load((ROOT / "config/demo.yaml").read_text())


@pytest.fixture
def clouds(tmp_path):
    """A folder with the names of ModelNet40's files, in a folder of its own."""
    folder = tmp_path / "data/clouds/h5"
    folder.mkdir(parents=True)
    for name in ("ply_data_train0.h5", "train_files.txt", "test_files.txt", "shape_names.txt"):
        (folder / name).touch()
    return folder


def refusal(source):
    """What is said of a study whose clouds lie in a local source."""
    config = copy.deepcopy(DEMO)
    config["tasks"] = {"pointnet": config["tasks"]["pointnet"]}
    config["datasets"] = {"shapes": {"kind": "pointcloud", "source": str(source)}}
    config["analyses"] = {"hessian": {}}
    study = start.study(config, SCHEMA, root=ROOT)
    try:
        local.check_local_files(study)
    except ConfigError as error:
        return str(error)
    return None


def test_a_folder_is_read_through_links(clouds, tmp_path):
    (tmp_path / "link").symlink_to(clouds.parent, target_is_directory=True)
    assert refusal(tmp_path / "link") is None
    (tmp_path / "files").mkdir()
    for path in clouds.iterdir():
        (tmp_path / "files" / path.name).symlink_to(path)
    assert refusal(tmp_path / "files") is None


def test_a_link_to_a_folder_above_is_not_followed_around(clouds, tmp_path):
    before = archives.files_below(tmp_path)
    (clouds / "loop").symlink_to(tmp_path / "data", target_is_directory=True)
    assert archives.files_below(tmp_path) == before


def test_a_link_to_nothing_is_named_where_it_would_be_read(clouds):
    (clouds / "notes.md").symlink_to("gone")
    (clouds / ".#train_files.txt").symlink_to("an-editor's-mark")
    assert refusal(clouds) is None
    (clouds / "ply_data_train1.h5").symlink_to("gone")
    said = refusal(clouds)
    assert said is not None
    assert said.startswith(f"datasets.shapes.source: {clouds}/ply_data_train1.h5 is a link to what")


def test_a_folder_without_the_files_of_its_kind_says_which_it_wants(tmp_path):
    said = refusal(tmp_path)
    assert said is not None
    assert "holds no file that data of kind 'pointcloud' are read from (ply_data_*.h5," in said


def test_a_file_that_may_not_be_read_is_named(clouds, monkeypatch):
    denied = str(clouds / "shape_names.txt")  # by hand: root may read everything
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != denied and access(path, mode))
    said = refusal(clouds)
    assert said == f"datasets.shapes.source: {denied} may not be read; change its permissions."


def test_a_folder_that_may_not_be_read_is_never_passed_over(clouds, monkeypatch):
    listing = type(clouds).iterdir

    def iterdir(folder):
        if folder.name in ("h5", "lost+found"):
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr(type(clouds), "iterdir", iterdir)
    with pytest.raises(DataError, match="h5 cannot be read"):
        archives.files_below(clouds.parent)
    said = refusal(clouds.parent)
    assert said is not None
    assert said.endswith("h5 cannot be read (Permission denied); make it readable.")
    os.rename(clouds, clouds.parent / "lost+found")
    assert archives.files_below(clouds.parent) == []


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe is neither a file nor a folder"):
        refusal(tmp_path / "pipe")
