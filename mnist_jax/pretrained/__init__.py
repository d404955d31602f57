"""The networks that come with the package: digits, trained on all of MNIST.

`FOLDER` is a folder as `experiments.bundle` makes it. MODEL_CARD.md in it tells what they are.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
FILES = ("config.json", "dataset.json", "results.json", "weights.npz", "MODEL_CARD.md")
