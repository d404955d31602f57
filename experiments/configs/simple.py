"""Two convolutions and one dense layer (published: 98.85 %)."""

from experiments.workdir.config import Config

config = Config(network="simple")
