"""The hypernetwork, in reading order: config, encoder, hypernetwork (the decoder), loss, training (one step), file.

Beside them: targets (pre-optimized LiDBs), latent_identity (the identity loss's nets), embedder, claims (what a file
may ask for).
"""
