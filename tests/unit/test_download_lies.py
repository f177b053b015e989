"""Servers that lie, secrets in addresses, planted links, and files that are put there by hand."""

import json
import logging

import pytest
from test_download import ARCHIVE, SUM, refused, server, started  # noqa: F401  a fixture

from equiscape.addresses import check_address, redact
from equiscape.data import KINDS, peptides, qm9, transfer, zinc
from equiscape.data import download as module
from equiscape.data.download import download, fetch
from equiscape.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(transfer, "WINDOW", 0.3)
    monkeypatch.setattr(transfer, "HEADERS", 0.4)


@pytest.mark.parametrize("checksum", [SUM, None], ids=["sha256", "none"])
def test_halves_of_different_answers_are_never_joined(server, tmp_path, checksum):  # noqa: F811
    for behavior in ("changing", "elsewhere"):
        path, _ = fetch([server.url(f"{behavior}/data.zip")], tmp_path / behavior, checksum)
        assert path.read_bytes() == ARCHIVE


def test_without_a_checksum_a_transfer_goes_on_where_the_server_vouches_for_it(
    server,  # noqa: F811
    tmp_path,
):
    assert fetch([server.url("cut/data.zip")], tmp_path)[0].read_bytes() == ARCHIVE
    assert [wanted is None for _, wanted in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("behavior", "says"),
    [
        ("absurd", "impossible length"),
        ("endless", "impossible length"),
        ("negative", "impossible length"),
        ("fewer", "wrong checksum"),
        ("more", "broke off"),
        ("part", "a part of the file for the whole"),
        ("loop", "redirects"),
        ("drip", "less than 100000 bytes a second"),
        ("drip-head", "does not answer"),
    ],
)
def test_a_lie_is_one_sentence_and_the_mirror_is_asked(
    server,  # noqa: F811
    tmp_path,
    monkeypatch,
    behavior,
    says,
):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    urls = [server.url(f"{behavior}/data.zip"), server.url("serve/data.zip")]
    with pytest.raises(DataError, match=says):
        fetch(urls[:1], tmp_path / "a", SUM, least_speed=100_000)
    found, url = fetch(urls, tmp_path / "b", SUM, least_speed=100_000)
    assert found.read_bytes() == ARCHIVE
    assert url == urls[1]


def test_any_other_fault_is_not_called_a_checksum(server, tmp_path, monkeypatch):  # noqa: F811
    def broken(*_, **__):
        raise ValueError("not a number")

    monkeypatch.setattr(transfer.Transfer, "__call__", broken)
    message = refused(server, tmp_path, "serve")
    assert "makes no sense (not a number)" in message
    assert "checksum" not in message


def test_a_planted_link_is_not_followed(server, tmp_path):  # noqa: F811
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "raw").mkdir()
    started(tmp_path / "raw", b"")
    (tmp_path / "raw/.data.zip.transfer/data").unlink()
    (tmp_path / "raw/.data.zip.transfer/data").symlink_to(victim)
    fetch([server.url("serve/data.zip")], tmp_path / "raw", SUM)
    assert victim.read_text() == "precious"
    (tmp_path / "other").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "other/.data.zip.transfer").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link"):
        fetch([server.url("serve/data.zip")], tmp_path / "other", SUM)


SECRETS = (
    "http://me:hunter2@127.0.0.1/data.zip",
    "http://127.0.0.1/data.zip?token=hunter2",
    "http://127.0.0.1/data.zip?x=1&X-Amz-Signature=hunter2",
)


@pytest.mark.parametrize("url", SECRETS)
def test_a_secret_in_an_address_is_refused_and_not_repeated(tmp_path, url):
    with pytest.raises(ConfigError, match=r"netrc|\$\{NAME\}") as error:
        fetch([url], tmp_path)
    assert "hunter2" not in str(error.value)
    assert "hunter2" not in redact(f"Max retries exceeded with url: {url} (…)")


def test_a_token_comes_from_the_environment_and_is_never_said(
    server,  # noqa: F811
    tmp_path,
    monkeypatch,
    caplog,
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    check_address("https://example.org/x.zip?token=${MY_TOKEN}", "source")
    source = f"{server.url('serve/${MY_TOKEN}')}"
    server.content["hunter2"] = ARCHIVE
    entry = {"kind": "pointcloud", "source": source, "sha256": SUM}
    download(entry, tmp_path / "raw", tmp_path / "raw.json")
    assert server.requests[-1][0] == "/serve/hunter2"
    server.content.pop("hunter2")
    (tmp_path / "raw").rename(tmp_path / "gone")
    with pytest.raises(DataError, match="could not be downloaded") as error:
        fetch([server.url("404/${MY_TOKEN}")], tmp_path / "raw", SUM)
    said = caplog.text + str(error.value) + (tmp_path / "raw.json").read_text()
    assert "hunter2" not in said
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(ConfigError, match="MY_TOKEN is not set"):
        fetch([source], tmp_path / "raw", SUM)


@pytest.mark.parametrize(
    ("kind", "names"),
    [("qm9", qm9.RAW), ("zinc", zinc.RAW_FILES), ("peptides-func", tuple(peptides.PUBLISHED))],
)
@pytest.mark.parametrize("below", [".", "raw", "QM9/raw"])
def test_files_put_there_by_hand_are_found_under_the_names_of_the_page(
    tmp_path, monkeypatch, kind, names, below
):
    shared = tmp_path / "shared"
    (shared / below).mkdir(parents=True)
    (shared / "another-data-set.zip").write_bytes(b"of another study")
    for name in names:
        (shared / below / name).write_bytes(name.encode())
    monkeypatch.setenv(module.FOLDER_VARIABLE, str(shared))
    path = download({"kind": kind, "source": "pyg"}, tmp_path / "raw", tmp_path / "raw.json")
    assert path == shared / below
    record = json.loads((tmp_path / "raw.json").read_text())
    assert set(record["files"]) == set(names), "what lies beside them is not part of it"
    assert kind in KINDS
