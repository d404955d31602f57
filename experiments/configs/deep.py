"""Three convolutions, three dense layers, dropout (published: 99.38 %)."""

from experiments.config import Config

config = Config(network="deep")
