"""What happens in a training worker: the visible loop, and what it changes.

`worker` is what Ray Train calls, `loop` shows the pictures to the network, `state` is what that changes and how it is
kept; the others are the loop's parts, a module each. The approaches that train import it.
"""
