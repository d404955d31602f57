"""LeCun's network of 1998, trained for 20 passes as it was then, though by Adam."""

from experiments.workdir.config import Config

config = Config(
    network="lenet5",
    epochs=20,
    batch_size=100,
    learning_rate=0.002,
    schedule="onecycle",
)
