"""Downloads, against a real server that cuts, corrupts, redirects and refuses."""

import hashlib
import io
import json
import resource
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
from loopback_server import serving

from equiscape.data import download as module
from equiscape.data import transfer
from equiscape.data.download import download, fetch
from equiscape.errors import ConfigError, DataError
from equiscape.files.archives import open_source


def zipped(**members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


NOISE = np.random.default_rng(0).bytes(300_000)
ARCHIVE = zipped(points=NOISE)
SUM = hashlib.sha256(ARCHIVE).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "WAIT", 0)
    monkeypatch.setattr(module, "PIECE", 10_000)
    monkeypatch.setattr(transfer, "PIECE", 10_000)
    monkeypatch.delenv(module.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving({"data.zip": ARCHIVE}) as running:
        yield running


def names(folder):
    """Everything in a folder but what a later run goes on from."""
    if not folder.exists():
        return []
    return sorted(file.name for file in folder.iterdir() if not file.name.endswith(".transfer"))


def started(folder, data):
    """A folder with a transfer that has come as far as ``data``."""
    (folder / ".data.zip.transfer").mkdir()
    (folder / ".data.zip.transfer/data").write_bytes(data)


def refused(server, folder, *behaviors, checksum=SUM):
    """The message of a download that must fail, and leave nothing under the final name."""
    with pytest.raises(DataError) as error:
        fetch([server.url(f"{b}/data.zip") for b in behaviors], folder, checksum)
    assert names(folder) == []
    assert "\n" not in str(error.value)
    assert "data.zip" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "checksum",
    [SUM, SUM.upper(), f"md5:{hashlib.md5(ARCHIVE).hexdigest()}", None],
    ids=["sha256", "upper", "md5", "none"],  # the archive's bytes hold the time it was made
)
def test_serves(server, tmp_path, checksum):
    path, url = fetch([server.url("serve/data.zip")], tmp_path / "raw", checksum)
    assert path.read_bytes() == ARCHIVE
    assert url == server.url("serve/data.zip")
    assert names(tmp_path / "raw") == ["data.zip"]


def test_what_is_there_already_is_not_fetched_again(server, tmp_path):
    for _ in range(2):
        fetch([server.url("serve/data.zip")], tmp_path, SUM)
    assert len(server.requests) == 1
    (tmp_path / "data.zip").write_bytes(b"rotten")
    assert fetch([server.url("serve/data.zip")], tmp_path, SUM)[0].read_bytes() == ARCHIVE


def test_redirect_is_followed(server, tmp_path):
    assert fetch([server.url("redirect/data.zip")], tmp_path, SUM)[0].read_bytes() == ARCHIVE


def test_a_cut_transfer_resumes_where_it_stopped(server, tmp_path):
    fetch([server.url("cut/data.zip")], tmp_path, SUM)
    assert (tmp_path / "data.zip").read_bytes() == ARCHIVE
    starts = [0] + [int(r.removeprefix("bytes=").rstrip("-")) for _, r in server.requests if r]
    assert len(starts) == 3
    assert 0 < starts[1] < starts[2] < len(ARCHIVE)


def test_a_server_without_ranges_starts_over(server, tmp_path):
    fetch([server.url("no-range/data.zip")], tmp_path, SUM)
    assert (tmp_path / "data.zip").read_bytes() == ARCHIVE
    assert len(server.requests) == 3


def test_the_next_run_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    assert "the transfer broke off" in refused(server, tmp_path, "always-cut")
    assert (tmp_path / ".data.zip.transfer/data").stat().st_size > 0
    fetch([server.url("serve/data.zip")], tmp_path, SUM)
    assert server.requests[-1][1] is not None
    assert (tmp_path / "data.zip").read_bytes() == ARCHIVE


def test_a_partial_file_of_other_bytes_does_no_harm(server, tmp_path):
    started(tmp_path, b"x" * 1000)
    fetch([server.url("serve/data.zip")], tmp_path, SUM)
    assert (tmp_path / "data.zip").read_bytes() == ARCHIVE


def test_a_complete_partial_file_is_enough(server, tmp_path):
    started(tmp_path, ARCHIVE)
    fetch([server.url("serve/data.zip")], tmp_path, SUM)
    assert (tmp_path / "data.zip").read_bytes() == ARCHIVE


def test_without_a_checksum_nothing_is_pieced_together(server, tmp_path):
    started(tmp_path, b"x" * 1000)
    fetch([server.url("serve/data.zip")], tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == ARCHIVE


def test_a_busy_server_is_asked_again(server, tmp_path):
    fetch([server.url("busy/data.zip")], tmp_path, SUM)
    assert len(server.requests) == 3


def test_mirrors_are_tried_in_order(server, tmp_path):
    urls = [server.url(f"{b}/data.zip") for b in ("404", "page", "corrupt", "serve", "cut")]
    path, url = fetch(urls, tmp_path, SUM)
    assert path.read_bytes() == ARCHIVE
    assert url == urls[3]
    assert [path.split("/")[1] for path, _ in server.requests] == [
        "404",
        "page",
        "corrupt",
        "serve",
    ]


@pytest.mark.parametrize(
    ("behavior", "says"),
    [
        ("corrupt", "wrong checksum"),
        ("short", "wrong checksum"),
        ("page", "an HTML page"),
        ("404", "404"),
        ("500", "503"),
        ("always-cut", "broke off"),
    ],
)
def test_refused_by_name_and_then_tried_again(server, tmp_path, behavior, says):
    message = refused(server, tmp_path, behavior)
    assert says in message
    assert server.url(f"{behavior}/data.zip") in message
    assert fetch([server.url("serve/data.zip")], tmp_path, SUM)[0].read_bytes() == ARCHIVE


def test_truncated_and_pages_are_noticed_without_a_checksum(server, tmp_path):
    assert "cut short" in refused(server, tmp_path, "short", checksum=None)
    assert "HTML page" in refused(server, tmp_path, "page", checksum=None)


def test_a_dead_host_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAIT", 0)
    with pytest.raises(DataError, match=r"data\.zip could not be downloaded .*connection failed"):
        fetch(["http://127.0.0.1:9/data.zip"], tmp_path, SUM)


def test_only_http(tmp_path):
    with pytest.raises(ConfigError, match="not an http address"):
        fetch(["ftp://127.0.0.1/data.zip"], tmp_path, SUM)


@pytest.mark.parametrize("member", ["/etc/passwd", "a/../../b", "C:\\b", "..\\b"])
def test_hostile_members_are_refused(server, tmp_path, member):
    server.content["data.zip"] = hostile = zipped(**{"good": b"1", member: b"2"})
    message = refused(server, tmp_path, "serve", checksum=hashlib.sha256(hostile).hexdigest())
    assert "points outside the archive" in message


def test_hostile_tar_members_and_links_are_refused(tmp_path):
    for kind, target in ((tarfile.REGTYPE, ""), (tarfile.SYMTYPE, "../../etc")):
        entry = tarfile.TarInfo("../x" if kind == tarfile.REGTYPE else "x")
        entry.type, entry.linkname = kind, target
        with tarfile.open(tmp_path / "data.tar", "w") as archive:
            archive.addfile(entry)
        with (
            pytest.raises(DataError, match="outside the archive"),
            open_source(tmp_path / "data.tar"),
        ):
            pass


def test_a_full_disk_is_one_sentence(server, tmp_path):
    """The kernel refuses to let a file of this process grow beyond a limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        message = refused(server, tmp_path, "serve")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "has no room for data.zip" in message
    assert list(tmp_path.iterdir()) == []
    fetch([server.url("serve/data.zip")], tmp_path, SUM)


def test_too_small_a_disk_is_noticed_before_the_transfer(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "has no room" in refused(server, tmp_path, "serve")


@pytest.fixture
def certificate(tmp_path):
    """A certificate that nobody signed but itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is absent")
    key, signed = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(signed)]
    subprocess.run(command, check=True, capture_output=True)
    signed.write_text(signed.read_text() + key.read_text())
    return signed


def test_a_bad_certificate_is_excused_by_a_sha256_only(tmp_path, certificate, monkeypatch, caplog):
    monkeypatch.setattr(module, "WAIT", 0)
    with serving({"data.zip": ARCHIVE}, certificate) as server:
        url = server.url("serve/data.zip")
        for checksum in (None, f"md5:{hashlib.md5(ARCHIVE).hexdigest()}"):
            with pytest.raises(DataError, match="certificate is not valid"):
                fetch([url], tmp_path / "raw", checksum)
        assert fetch([url], tmp_path / "raw", SUM)[0].read_bytes() == ARCHIVE
        assert "the SHA-256 decides" in caplog.text
        with pytest.raises(DataError, match="wrong checksum"):
            fetch([url], tmp_path / "other", SUM[::-1])


def test_download_folder_serves_nodes_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv(module.FOLDER_VARIABLE, str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/data.zip").write_bytes(ARCHIVE)
    url = "http://127.0.0.1:9/data.zip"
    path, _ = fetch([url], tmp_path / "raw", SUM)
    assert path == tmp_path / "shared/data.zip"
    (tmp_path / "shared/data.zip").write_bytes(b"rotten")
    with pytest.raises(DataError, match=r"shared/data\.zip .* replace it"):
        fetch([url], tmp_path / "raw", SUM)


def test_record(server, tmp_path):
    entry = {"kind": "pointcloud", "source": server.url("serve/data.zip"), "sha256": SUM}
    path = download(entry, tmp_path / "raw", tmp_path / "raw.json")
    record = json.loads((tmp_path / "raw.json").read_text())
    expected = {"path": str(path), "sha256": SUM, "bytes": len(ARCHIVE)}
    assert record == expected

    local = {"kind": "pointcloud", "source": str(path), "sha256": SUM}
    before = download(local, tmp_path / "raw", tmp_path / "local.json")
    text = (tmp_path / "local.json").read_text()
    path.touch()
    assert download(local, tmp_path / "raw", tmp_path / "local.json") == before
    assert (tmp_path / "local.json").read_text() == text, "a touched file changes nothing"
    with pytest.raises(DataError, match="does not have the checksum"):
        download({**local, "sha256": "0" * 64}, tmp_path / "raw", tmp_path / "local.json")


def test_unpacks_the_files_it_is_asked_for(server, tmp_path):
    (tmp_path / "data.zip").write_bytes(zipped(**{"deep/a.txt": b"a", "b.txt": b"b"}))
    module.unpack(tmp_path / "data.zip", ["a.txt"], tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "a.txt": b"a"
    }
    with pytest.raises(DataError, match=r"c\.txt is missing from .*data\.zip"):
        module.unpack(tmp_path / "data.zip", ["c.txt"], tmp_path / "out")


def test_fetched_into_a_folder_from_the_folder_of_downloads(tmp_path, monkeypatch):
    monkeypatch.setenv(module.FOLDER_VARIABLE, str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/b.txt").write_bytes(b"b")
    module.fetch_into(tmp_path / "raw", "b.txt", "http://127.0.0.1:9/files/1")
    assert (tmp_path / "raw/b.txt").read_bytes() == b"b"


def test_zinc_and_qm9_and_peptides_come_by_the_same_way(server, tmp_path, monkeypatch):
    from torch_geometric import datasets

    from equiscape.data import peptides, qm9, zinc

    raw = {name: name.encode() for name in (*qm9.RAW, "test.index", "val.index", "train.index")}
    pickles = {f"molecules/{name}.pickle": b"p" for name in ("train", "val", "test")}
    server.content |= raw | {"qm9.zip": zipped(**{n: raw[n] for n in qm9.RAW[:2]})}
    server.content["molecules.zip"] = zipped(**pickles)
    monkeypatch.setattr(datasets.QM9, "raw_url", server.url("serve/qm9.zip"))
    monkeypatch.setattr(datasets.QM9, "raw_url2", server.url("redirect/uncharacterized.txt"))
    monkeypatch.setattr(datasets.ZINC, "url", server.url("cut/molecules.zip"))
    monkeypatch.setattr(datasets.ZINC, "split_url", server.url("serve/{}.index"))
    published, md5 = "peptide_multi_class_dataset.csv.gz", hashlib.md5(ARCHIVE).hexdigest()
    served = {published: (md5, server.url("serve/data.zip"))}
    monkeypatch.setattr(peptides, "PUBLISHED", served)
    for kind, expected in (
        ("qm9", qm9.RAW),
        ("zinc", [f"{s}.{k}" for s in zinc.OFFICIAL for k in zinc.RAW]),
        ("peptides-func", [published]),
    ):
        path = download({"kind": kind, "source": "pyg"}, tmp_path / kind, tmp_path / "raw.json")
        assert all((path / name).is_file() for name in expected)
        record = json.loads((tmp_path / "raw.json").read_text())
        assert set(expected) <= set(record["files"])
