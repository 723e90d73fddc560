"""Pages that need nothing but a browser: the training report and the receipt of a label job are made of these parts."""
