"""Kim's CNN for sentences with random word vectors, as published: Adadelta, batches of 50."""

from experiments.workdir.config import Config

config = Config(
    network="sentence", epochs=25, batch_size=50, optimizer="adadelta", learning_rate=1.0
)
