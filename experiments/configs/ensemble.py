"""Seven of the network layers, logits summed (published: 99.52 %)."""

from experiments.workdir.config import Config

config = Config(network="layers", members=7)
