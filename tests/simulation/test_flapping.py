"""A host whose links come and go once a second is told of a few times, not each time."""

from __future__ import annotations

import pytest

from tektonmesh.core.damping import Damping
from tektonmesh.core.replica import Change
from tektonmesh.sim.host import Host
from tektonmesh.sim.scenarios import SCENARIOS
from tektonmesh.sim.watcher import Watcher
from tektonmesh.sim.world import World


class LinkNews(Watcher):
    """Counts the heads by which the three hosts concerned tell of their links."""

    name = "link-news"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.count = 0

    def changed(self, host: Host, change: Change) -> None:
        own = change.owner == host.stack_id and host.index in (1, 2, 3)
        self.count += own and any(key.startswith("link/") for key in change.keys)


def link_news() -> int:
    world = World(SCENARIOS["flap"].world(1, None), [LinkNews])
    world.run()
    assert not world.violations and world.converged_after is not None
    news = world.watchers[0]
    assert isinstance(news, LinkNews)
    return news.count


def test_links_that_flap_are_told_of_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    damped = link_news()
    monkeypatch.setattr(Damping, "rest_s", lambda *_: 0.0)
    assert damped < 60 and 1.5 * damped < link_news()
