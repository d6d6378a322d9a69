"""Two pods on two nodes, one rank each."""

import pytest

from examples import demo
from rectrain_api.schema import parse_quantity
from tests.e2e.test_several_pods import EPOCHS, alive, lose_each_pod_once
from tests.real.conftest import Nodes
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(600)
CPUS = "jsonpath={.status.allocatable.cpu}"


def test_a_lost_pod_is_replaced_alone_and_both_go_on_from_the_checkpoint(rig: Rig, nodes: Nodes) -> None:
    has = parse_quantity(demo.run("kubectl", "get", "node", nodes.names[0], "-o", CPUS))
    apart = {"requests": {"cpu": f"{int(has * 550)}m"}}  # more than half: one pod a node
    settings = {"training.epochs": EPOCHS, "checkpoint.interval": 4, "replicas.resources": apart}
    rig.apply("pair", **{"replicas.nodes": 2}, **settings)
    rig.wait_committed("pair")
    assert len({p["spec"]["nodeName"] for p in alive("pair").values()}) == 2
    lose_each_pod_once(rig, "pair")
