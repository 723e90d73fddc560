"""The pictures of training, on their way to the network.

Which of them come how often, in which order and at which size; fetched, decoded and varied ahead of the loop. The loop,
the approaches and what publishes a model import it; it knows neither networks nor Ray.
"""
