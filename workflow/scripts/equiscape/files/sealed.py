"""Tensors and plain values behind one line of text that ends in the SHA-256 of what follows.

What is kept of unfinished work has this form: a file that a dying disk or job has damaged is known.
"""

import hashlib
import io
from typing import Any

import torch


def seal(value: Any, *words: str) -> tuple[bytes, memoryview]:
    """The parts of a file: the line of ``words`` and the checksum, and ``torch.save``'s bytes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    content = buffer.getbuffer()
    return f"{' '.join([*words, hashlib.sha256(content).hexdigest()])}\n".encode(), content


def unseal(data: bytes) -> tuple[list[str], bytes | None]:
    """The words of a file, and the bytes behind them; None where these are not those written."""
    head, _, content = data.partition(b"\n")
    *words, checksum = head.decode(errors="replace").split() or [""]
    return words, content if hashlib.sha256(content).hexdigest() == checksum else None


def load(content: bytes, device: torch.device | None = None) -> Any:
    """The value in the bytes that :func:`unseal` gave."""
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
