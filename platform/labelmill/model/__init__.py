"""A model as it travels: the network, the bundle, the registry, and the labeler that turns bytes into labels."""
