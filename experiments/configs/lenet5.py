"""LeCun et al.'s network of 1998: 20 passes over all 60,000 digits, as then, but by Adam."""

from experiments.workdir.config import Config

# The paper names no value of equation 9's j; 10 is by 10,000 of the training digits.
config = Config(
    network="lenet5",
    network_options="rubbish=10",
    epochs=20,
    batch_size=50,
    learning_rate=0.003,
    schedule="onecycle",
    validation=0,
)
