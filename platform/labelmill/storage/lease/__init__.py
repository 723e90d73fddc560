"""One run at a time on a table, or of a training: a lease with a heartbeat, kept where every node can read it.

A lease is an immutable numbered object, `lease/000017.json`, that names its holder; the highest number holds. It is
claimed by writing the next number only if absent, the one conditional write that all good stores agree on. The holder
alone rewrites `lease/000017.beat`. A newcomer judges by whether the beat moves while it watches, never by comparing
two machines' clocks; one that may replace the holder leaves `lease/000017.stop`, which the holder sees as it beats.
Behind the lease of a table stands the fence in the table's own log: see `LabelTable`.
"""

from labelmill.storage.lease.lease import Lease, Tenure, held_by, hold_lease
from labelmill.storage.lease.rows import LEASE_FOLDER, Fence

__all__ = ["LEASE_FOLDER", "Fence", "Lease", "Tenure", "held_by", "hold_lease"]
