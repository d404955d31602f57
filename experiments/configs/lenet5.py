"""LeCun et al.'s network of 1998, for 20 passes over the digits as it was then, but by Adam."""

from experiments.workdir.config import Config

config = Config(
    network="lenet5",
    epochs=20,
    learning_rate=0.003,
    schedule="onecycle",
)
