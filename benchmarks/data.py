"""Time the preparation of ModelNet40 and the corruption of clouds, on data of the same size.

Usage: python benchmarks/data.py FOLDER

Writes an archive of ModelNet40's layout and size (9,840 + 2,468 clouds of 2,048 points with
normals and face numbers, compressed in HDF5 and zipped) into FOLDER, prepares it, and runs the 13
generated corruptions at 5 severities on 500 clouds of 1,024 points. Prints seconds of wall and
CPU time and the peak memory of each step.
"""

import resource
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow/scripts"))

from equiscape.data import pointcloud
from equiscape.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt

EXPECT = {"train": 9840, "test": 2468, "classes": 40}
CLOUDS_A_FILE = 2048


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print what a block costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {wall:.1f} s wall, {cpu:.1f} s CPU, peak {peak:.0f} MiB so far", flush=True)


def write_archive(path: Path) -> None:
    """Write an archive like ModelNet40's, of random clouds."""
    rng = np.random.default_rng(0)
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("m/shape_names.txt", "".join(f"shape{i}\n" for i in range(40)))
        for side in ("train", "test"):
            left, names = EXPECT[side], []
            while left:
                n = min(left, CLOUDS_A_FILE)
                names.append(f"ply_data_{side}{len(names)}.h5")
                file = path.with_name(names[-1])
                with h5py.File(file, "w") as written:
                    for what in ("data", "normal"):
                        points = rng.uniform(-0.5, 0.5, (n, 2048, 3)).astype(np.float16)
                        written.create_dataset(
                            what,
                            data=points.astype(np.float32),
                            compression="gzip",
                            compression_opts=1,
                        )
                    faces = rng.integers(0, 5000, (n, 2048), dtype=np.int32)
                    written.create_dataset(
                        "faceId", data=faces, compression="gzip", compression_opts=1
                    )
                    written["label"] = (np.arange(n) % 40).astype(np.uint8)[:, None]
                archive.write(file, f"m/{names[-1]}")
                file.unlink()
                left -= n
            archive.writestr(f"m/{side}_files.txt", "".join(f"data/m/{n}\n" for n in names))
    part.rename(path)


def main(folder: Path) -> None:
    """Run both steps."""
    folder.mkdir(parents=True, exist_ok=True)
    archive, prepared = folder / "modelnet40.zip", folder / "modelnet40.h5"
    if not archive.exists():
        write_archive(archive)
    print(f"archive of {archive.stat().st_size / 1e6:.0f} MB")
    with timed("prepare ModelNet40's size"):
        pointcloud.prepare({"expect": EXPECT, "validation": 0.1}, archive, prepared)
    with timed("load 1,024 points a cloud"):
        pointcloud.load(prepared, "cpu", {"points": 1024})
    with h5py.File(prepared) as file:
        clouds = file["points"][:500]
    with timed("13 corruptions x 5 severities of 500 clouds"):
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                points = clouds if name == "density_inc" else clouds[:, :1024]
                corrupt(points, name, severity, range(500))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
