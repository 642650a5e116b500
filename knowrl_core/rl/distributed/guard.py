"""Become another program that ends with its parent: ``python -m knowrl_core.rl.distributed.guard PARENT PROGRAM ...``.

The kernel's promise to kill a process with its parent outlives ``exec``, so DeepSpeed's launcher needs not know of it.
"""

import os
import sys

from knowrl_core.worker.process import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the program that the parent asks for
