from tektonmesh.core import effects as fx
from tests.network import Network


def test_a_source_is_told_of_once_a_minute_and_the_rest_is_counted() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    a, b = network["a"], network["b"]
    env, refusals = a.node.env, a.node.deliveries.sealer.refusals
    for _ in range(100):
        refusals.note(b.id, "forged")
    env.now += 59.0
    refusals.note(b.id, "forged")
    env.now += 2.0
    refusals.note(b.id, "forged")
    notices = [effect for effect in env.take() if isinstance(effect, fx.Notice)]
    told = [(notice.kind, notice.data["untold"]) for notice in notices]
    assert told == [("seal_refused", 0), ("seal_refused", 100)]


def test_sources_that_nobody_knows_count_as_one() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    a, b = network["a"], network["b"]
    env, refusals = a.node.env, a.node.deliveries.sealer.refusals
    env.take()
    for n in range(100):
        refusals.note(n.to_bytes(32), "The envelope is from a stack that is not known here.")
    refusals.note(b.id, "forged")
    notices = [effect for effect in env.take() if isinstance(effect, fx.Notice)]
    assert [notice.data["source"] for notice in notices] == [bytes(32).hex(), b.id.hex()]
