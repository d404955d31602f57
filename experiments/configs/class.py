"""The network deep with initial convolutions of standard deviation 1, as in the class lab."""

from experiments.workdir.config import Config

config = Config(network="deep", conv_stddev=1.0)
