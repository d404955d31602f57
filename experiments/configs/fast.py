"""One epoch to 99 %: a small network, batches of 256, a one-cycle schedule."""

from experiments.workdir.config import Config

config = Config(
    network="fast",
    epochs=1,
    batch_size=256,
    learning_rate=0.01,
    schedule="onecycle",
    beta1=0.7,
    beta2=0.9,
    validation=0,
)
