"""The network of the layers lab: dense 2048, dropout (published: 99.33 to 99.49 %)."""

from experiments.workdir.config import Config

config = Config(network="layers")
