"""What is said of workers: what ended one in its own words, wherever Ray's text has them, and where it is."""

import pytest

from labelmill.cluster import named_node, said_by_worker
from labelmill.errors import CredentialsError, DataError, NodeError, UnavailableError

MISSING = "ModuleNotFoundError: No module named 'openvino'"

IN_A_CALL = f"""ray::MapWorker(MapBatches(LabelOnCore)).submit() (pid=27719, ip=127.0.0.1, actor_id=74a3ea5e)
    yield from _map_task(
  File "site-packages/labelmill/model/engines/graphs.py", line 52, in has_bfloat16
    import openvino as ov
{MISSING}

The above exception was the direct cause of the following exception:

ray::MapWorker(MapBatches(LabelOnCore)).submit() (pid=27719, ip=127.0.0.1, actor_id=74a3ea5e)
  File "site-packages/ray/data/_internal/planner/plan_udf_map_op.py", line 482, in __next__
ray.exceptions.UserCodeException: UDF failed to process a data block."""

AT_THE_START = f"""The actor died because of an error raised in its creation task, \
ray::MapWorker(MapBatches(LabelOnCore)).__init__() (pid=28630, ip=127.0.0.1, actor_id=90254812)
  At least one of the input arguments for this task could not be computed:
ray.exceptions.RaySystemError: System error: No module named 'openvino'
traceback: Traceback (most recent call last):
{MISSING}"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (IN_A_CALL, MISSING),
        (AT_THE_START, MISSING),
        ("System error: the node is gone\nTraceback", "System error: the node is gone"),
    ],
    ids=["in a call", "at the start", "no worker's"],
)
def test_what_ended_a_worker_is_said_in_its_own_words(text, said):
    assert said_by_worker(RuntimeError(text)) == said


@pytest.mark.parametrize("reason", [CredentialsError("ExpiredToken"), UnavailableError("no answer"), NodeError("gone")])
def test_what_a_worker_cannot_reach_is_said_with_its_node(reason):
    with pytest.raises(NodeError, match=rf"^node 10.0.0.7: {reason}\. Every node needs"), named_node("10.0.0.7"):
        raise reason


def test_what_is_no_nodes_fault_is_said_as_it_is():
    with pytest.raises(DataError, match=r"^none of 3 pictures$"), named_node("10.0.0.7"):
        raise DataError("none of 3 pictures")
