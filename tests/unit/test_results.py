"""A study's results, opened from a folder that was moved: Python sees what the files say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from fake_envelope import envelope
from fake_results import CLOUDS, write_representative, write_study
from saved_network import save_network

import equiscape
from equiscape import io
from equiscape.errors import CheckpointError, ConfigError, DataError
from equiscape.report.tables import write_tables
from equiscape.results import Study

LIBRARY = Path(equiscape.__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study that was written in one place and lies in another."""
    there = tmp_path_factory.mktemp("there") / "results/demo"
    made = write_study(there, {"pointnet": CLOUDS["pointnet"]}, every_seed=True)
    write_tables(made, there / "tables")
    for optimizer in made.optimizers:
        write_representative(made, "pointnet", optimizer, 2)
    save_network(made.final("pointnet", "muon", 2, "checkpoint.pt"), 2)
    save_network(made.final("pointnet", "muon", 1, "checkpoint.pt"), 1, weights=False)
    save_network(made.final("pointnet", "muon", 2, "snapshots/epoch10.pt"), 10)
    grid = there / "grid/pointnet_muon/lr1e-3_wd1e-2_seed0"
    grid.mkdir(parents=True)
    shutil.copy(made.final("pointnet", "muon", 0, "history.csv"), grid)
    product = made.analysis("rank")[0]
    io.write_json(
        product.path.with_suffix(".json"),
        envelope(product, "rank", 0, sha256=io.sha256(product.path)),
    )
    here = tmp_path_factory.mktemp("here") / "moved"
    shutil.move(there, here)
    return here


@pytest.fixture
def study(folder):
    return equiscape.Study.open(folder)


def test_opening_imports_nothing_heavy(folder):
    code = (
        "import sys, equiscape; study = equiscape.Study.open(sys.argv[1]); study.tables\n"
        "print(study); print({'torch', 'numpy', 'pandas', 'h5py'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, folder],
        capture_output=True, text=True, env={"PYTHONPATH": str(LIBRARY)}, check=True,
    )  # fmt: skip
    assert run.stdout.splitlines() == [
        f"Study('{folder}': pointnet; adam, muon; seeds 0, 1, 2)", "set()",
    ]  # fmt: skip


def test_every_table_is_a_frame(study, folder):
    assert set(study.tables) == {path.stem for path in (folder / "tables").glob("*.csv")}
    assert study.tables["accuracy"].startswith("Test scores of the final seeds")
    for name in study.tables:
        path = folder / "tables" / f"{name}.csv"
        expected = pd.read_csv(path) if path.read_text() != "\n" else pd.DataFrame()
        pd.testing.assert_frame_equal(study.table(name), expected)


def test_every_product_is_what_its_file_holds(study, folder):
    assert {"hessian", "slice", "rank", "connectivity", "representation"} <= set(study.analyses)
    for analysis in study.analyses:
        for product in study.products(analysis):
            assert product.path.is_relative_to(folder)
            if product.path.suffix == ".csv":
                pd.testing.assert_frame_equal(product.data, pd.read_csv(product.path))
            elif product.path.suffix == ".json":
                assert product.data == json.loads(product.path.read_text()) == product.envelope
    plane = study.product("slice", "pointnet", "muon", seed=1)
    with h5py.File(folder / "slice/pointnet_muon/seed1.h5", locking=False) as file:
        np.testing.assert_array_equal(plane.data["loss"], file["loss"][:])
        assert plane.attributes["chance_loss"] == file.attrs["chance_loss"] == 2.48
    assert study.product("representation").path == folder / "representation/study.csv"
    pair = study.product("connectivity", "pointnet", "muon", second="adam")
    assert (pair.optimizer, pair.second, pair.seed) == ("adam", "muon", None)
    own = study.product("connectivity", "pointnet", "muon")
    assert own.path.name == "pointnet_muon_muon.csv"
    where = study.product("rank", "pointnet", "adam", seed=0).checkpoints
    assert where == [folder / "final/pointnet_adam/seed0/checkpoint.pt"]


def test_all_of_an_analysis_is_one_frame(study):
    frame = study.frame("rank")
    assert len(frame) == sum(len(one.data) for one in study.products("rank"))
    assert set(map(tuple, frame[["optimizer", "seed"]].drop_duplicates().to_numpy())) == {
        (optimizer, seed) for optimizer in ("adam", "muon") for seed in (0, 1, 2)
    }
    with pytest.raises(DataError, match=r"hessian writes \.json files and no tables"):
        study.frame("hessian")


def test_cells_have_histories_scores_and_predictions(study, folder):
    cell = study.cell("pointnet", "adam", 1)
    at = folder / "final/pointnet_adam/seed1"
    pd.testing.assert_frame_equal(cell.history, pd.read_csv(at / "history.csv"))
    assert cell.metrics == json.loads((at / "metrics.json").read_text())
    assert cell.predictions["confusion"].shape == (40, 40)
    whole = study.histories().query("optimizer == 'adam' and seed == 1").reset_index(drop=True)
    np.testing.assert_array_equal(whole["test_score"], cell.history["test_score"])
    for lr in ("1e-3", 0.001):  # as it is spelled, or as a number
        grid = study.cell("pointnet", "muon", lr=lr, wd=0.01)
        assert grid.folder == folder / "grid/pointnet_muon/lr1e-3_wd1e-2_seed0"
        assert len(grid.history) == 12
    assert study.selection("pointnet", "adam")["lr"] == "1e-3"


def test_a_network_predicts_as_the_one_that_was_saved(study, folder):
    clouds = torch.randn(4, 32, 3, generator=torch.Generator().manual_seed(0))
    for epoch, seed in ((None, 2), (10, 10)):
        expected = save_network(folder / "unused.pt", seed)(clouds).argmax(-1)
        assert torch.equal(study.model("pointnet", "muon", epoch=epoch).predict(clouds), expected)
    assert study.cell("pointnet", "muon").snapshots == [10]
    with pytest.raises(CheckpointError, match="holds no weights, since its cell diverged"):
        study.model("pointnet", "muon", 1)


def test_folders_that_are_none_are_told_where_one_is(folder, tmp_path):
    assert Study.open(folder / "report.json").folder == Study.open(str(folder)).folder == folder
    with pytest.raises(DataError, match=r"nowhere is no folder; give the folder of"):
        Study.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no report\.json; the rule manifest writes it"):
        Study.open(tmp_path)
    with pytest.raises(DataError, match=rf"did you mean {folder}\."):
        Study.open(folder / "tables")
    with pytest.raises(DataError, match=rf"did you mean {folder}\."):
        Study.open(folder.parent)
    shutil.copytree(folder / "hessian", tmp_path / "results/mine/hessian")
    shutil.copy(folder / "report.json", tmp_path / "results/mine")
    with pytest.raises(DataError, match=r"did you mean .*/results/mine\."):
        Study.open(tmp_path)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda s: s.table("acuracy"), ConfigError, "'acuracy' .* did you mean 'accuracy'"),
        (lambda s: s.products("hesian"), ConfigError, "did you mean 'hessian'"),
        (lambda s: s.cell("pointnett", "adam", 0), ConfigError, "did you mean 'pointnet'"),
        (lambda s: s.product("rank", "pointnet", "mun"), ConfigError, "did you mean 'muon'"),
        (lambda s: s.product("rank", "pointnet", "muon"), DataError, "has 3 results of rank, task"),
        (lambda s: s.product("rank", seed=9), DataError, "has no result of rank, seed 9; those of"),
        (lambda s: s.model("pointnet", "muon", 9), DataError, "no final cell of seed 9; its seeds"),
        (lambda s: s.model("pointnet", "muon", 2, 3), DataError, "there are of epochs 10"),
        (lambda s: s.model("pointnet", "adam", 2, 3), DataError, "snapshots there are none"),
        (lambda s: s.model("pointnet", "adam"), DataError, "missing; finish the study, or"),
        (lambda s: s.cell("pointnet", "muon", lr=7), DataError, "no cell of lr 7.*lr 1e-4, wd 0"),
        (
            lambda s: s.cell("pointnet", "muon", lr="1e-3", wd="1e-2").model(),
            DataError,
            "only final cells keep weights",
        ),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named(study, ask, error, message):
    with pytest.raises(error, match=message):
        ask(study)


def test_files_that_are_missing_or_changed_are_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    study = Study.open(tmp_path / "copy")
    rank = study.products("rank")[0]
    rank.path.write_text(rank.path.read_text().replace("64", "65"))
    with pytest.raises(DataError, match="is not the file that its rule wrote"):
        _ = rank.data
    plane = study.products("slice")[0]
    plane.path.write_bytes(b"not HDF5")
    with pytest.raises(DataError, match=r"\.h5 is not HDF5"):
        _ = plane.data
    (study.folder / "tables/accuracy.csv").unlink()
    assert "accuracy" not in study.tables
    with pytest.raises(DataError, match=r"accuracy\.csv is missing; finish the study, or copy tab"):
        study.table("accuracy")
    hessian = study.products("hessian")[0]
    hessian.path.unlink()
    for ask in (lambda: hessian.data, lambda: hessian.envelope):
        with pytest.raises(DataError, match=r"seed0\.json is missing; finish the study, or copy"):
            ask()


def test_an_analysis_whose_cells_all_diverged_gives_an_empty_frame(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    study = Study.open(tmp_path / "copy")
    rank = study.products("rank")[0]
    rank.path.write_text("\n")  # as the writer of results leaves it
    head = {"status": "diverged", "checkpoints": [], "sha256": io.sha256(rank.path)}
    io.write_json(rank.path.with_suffix(".json"), envelope(rank.of, "rank", **head))
    assert rank.data.empty
    assert len(study.frame("rank")) == sum(len(one.data) for one in study.products("rank")[1:])
    write_representative(study.manifest, "pointnet", "adam", None)
    with pytest.raises(DataError, match="has no representative, since every final cell diverged"):
        study.model("pointnet", "adam")
