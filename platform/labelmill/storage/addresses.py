"""Many addresses at once, as a listing writes them."""

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.address import ABSOLUTE, BUCKETS, tidied

__all__ = ["as_listed"]

_IN_A_BUCKET = f"^(?:{'|'.join(BUCKETS)})://"
_UNTIDY = r"(?:^|/)\.{0,2}(?:/|$)"


def as_listed(uris: pa.Array, base: str) -> pa.Array:
    """What somebody wrote of pictures, each as `address.tidied`; a relative one starts at `base`."""
    absolute = pc.match_substring_regex(uris, ABSOLUTE)
    joined = pc.if_else(absolute, uris, pc.binary_join_element_wise(base.rstrip("/"), uris, "/"))
    untidy = pc.and_not(pc.match_substring_regex(uris, _UNTIDY), pc.match_substring_regex(uris, _IN_A_BUCKET))
    if not pc.any(untidy).as_py():
        return joined
    written = [tidied(uri, base) for uri in uris.filter(untidy).to_pylist()]
    return pc.replace_with_mask(joined, untidy, pa.array(written, pa.string()))
