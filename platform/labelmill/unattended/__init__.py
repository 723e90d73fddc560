"""What a run needs that nobody watches: its turn on a table or a training, and somebody who hears how it ended."""

from labelmill.unattended.notice import note, told_of_end
from labelmill.unattended.turn import turn_of

__all__ = ["note", "told_of_end", "turn_of"]
