from types import SimpleNamespace


def resolve_vae(checkpoint_file):
    return SimpleNamespace(vae=chosen[0] if chosen else None)


chosen = []  # fake only: the user's VAE
