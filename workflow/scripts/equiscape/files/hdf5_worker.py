"""The child process of :class:`equiscape.files.hdf5.ForeignFiles`, which reads others' HDF5.

It takes requests on its standard input (a line of JSON, then the bytes of a file) and answers on
its standard output (a line of JSON, then the bytes of the arrays). It imports nothing of this
project, so that it starts in a fraction of a second.
"""

import io
import json
import resource
import sys

import h5py
import numpy as np

MEMORY = 2**33  # bytes of address space beside those of the arrays


def main() -> None:
    """Answer requests until the standard input ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while line := source.readline():
        request = json.loads(line)
        data = source.read(request["bytes"])
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        limit(resource.RLIMIT_CPU, int(used + request["seconds"]) + 1)
        limit(resource.RLIMIT_AS, MEMORY + 4 * len(data) + 2 * request["largest"])
        try:
            arrays = read(data, request)
        except BaseException as error:  # whatever HDF5 and h5py make of damage
            reason = (str(error).splitlines() or [""])[0].strip("'\"") or type(error).__name__
            sink.write(json.dumps({"error": reason[:300]}).encode() + b"\n")
        else:
            heads = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
            sink.write(json.dumps({"arrays": heads}).encode() + b"\n")
            for array in arrays.values():
                sink.write(array.tobytes())
        sink.flush()


def limit(what: int, value: int) -> None:
    """Lower a soft limit as far as the system allows."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def read(data: bytes, request: dict) -> dict[str, np.ndarray]:
    """The arrays that a request names."""
    arrays = {}
    with h5py.File(io.BytesIO(data), "r") as file:
        for name in (*request["names"], *request["optional"]):
            link = file.get(name, getlink=True) if name in list(file) else None
            if link is None:
                if name in request["optional"]:
                    continue
                raise ValueError(f"it holds no {name}")
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"its {name} is a link to somewhere else")
            arrays[name] = array(file[name], name, request["largest"])
    return arrays


def array(dataset: h5py.Dataset, name: str, largest: int) -> np.ndarray:
    """A data set that lies in its own file and holds plain numbers."""
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"its {name} is not an array")
    if dataset.is_virtual or dataset.id.get_create_plist().get_external_count():
        raise ValueError(f"its {name} lies in another file")
    if dataset.shape is None or dataset.dtype.kind not in "iufb" or dataset.dtype.itemsize > 8:
        raise ValueError(f"its {name} holds {dataset.dtype} instead of plain numbers")
    if (
        dataset.dtype.itemsize * int(np.prod([int(n) for n in dataset.shape], dtype=object))
        > largest
    ):
        raise ValueError(f"its {name} would unpack to {list(dataset.shape)}")
    return np.asarray(dataset[()])


if __name__ == "__main__":
    main()
