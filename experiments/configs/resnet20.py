"""He et al.'s ResNet-20 on CIFAR-10, with the recipe of their section 4.2: 64,000 steps."""

from experiments.workdir.config import Config

config = Config(
    network="resnet20",
    dataset="cifar10",
    normalize="standard",
    augment="crop-flip",
    epochs=182,  # of 351 steps on 45,000 images
    batch_size=128,
    optimizer="momentum",
    learning_rate=0.1,
    schedule="steps",
    weight_decay=1e-4,
)
