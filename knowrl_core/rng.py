"""Random streams that depend on what they are for, never on global state or order of execution."""

import hashlib

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed for a named stream, such as ``derive_seed(run_seed, iteration, "classify", task_id)``.

    Parts are length-prefixed before hashing, so that ``("a", "bc")`` and ``("ab", "c")`` differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = f"{type(part).__name__}:{part}".encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def stream(*parts: int | str) -> np.random.Generator:
    """A NumPy generator on the stream that the parts name (Philox: counter-based, same on every platform)."""
    return np.random.Generator(np.random.Philox(derive_seed(*parts)))
