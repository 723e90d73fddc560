"""The runs of a label table, night by night: what became of each, and which ones never were."""

from labelmill.table.nights.gaps import Gap, gaps, next_start
from labelmill.table.nights.night import Night, nights
from labelmill.table.nights.prometheus import exposition

__all__ = ["Gap", "Night", "exposition", "gaps", "next_start", "nights"]
