"""What a training run is told: `train` is the whole, the others its blocks, a module each."""
