"""Settings that make the runs of an experiment take a second."""

NETS = "modalities.{}.hidden=8"
DIGITS = [
    "epochs=2",
    "batch_size=400",
    "latent_dim=4",
    NETS.format("image"),
    NETS.format("label"),
    "flows.mvae_cnf.hidden=[8]",
    "flows.mvae_cnf.n_steps=2",
]
PHOTOS = [
    "elbo_samples=1",
    "iwae_samples=2",
    "epochs=1",
    "batch_size=750",
    "latent_dim=4",
    "modalities.image.channels=2",
    "modalities.gray.channels=2",
    "flows.mvae_cnf.hidden=[8]",
    "flows.mvae_cnf.n_steps=2",
]
SIX = ("image", "outline", "label", "position", "attributes", "size")
SHAPES = [
    "elbo_samples=1",
    "iwae_samples=2",
    "epochs=1",
    "batch_size=1000",
    "latent_dim=4",
    *map(NETS.format, SIX),
    "flows.mvae_cnf.hidden=[8]",
    "flows.mvae_cnf.n_steps=2",
]


def options(settings):
    """``--set`` for each."""
    return [word for setting in settings for word in ("--set", setting)]
