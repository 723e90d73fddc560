"""How good a bundle is on labelled pictures, answered by the very Labeler that labels in bulk and online."""
