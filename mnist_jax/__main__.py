"""The commands, listed: `python -m mnist_jax`; any of them as `python -m mnist_jax run ...`."""

import sys

from experiments.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
