"""Three convolutions, three dense layers, dropout (published: 99.38 %)."""

from experiments.workdir.config import Config

config = Config(network="deep")
