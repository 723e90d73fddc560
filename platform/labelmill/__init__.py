"""labelmill: train an image classifier, label an object store with it in bulk, serve the same model."""

__version__ = "0.1.0"
