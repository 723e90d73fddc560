"""From the bytes of a picture to pixels: decode, transform for evaluation, augment for training. No torch here."""
