"""The codes of hops."""

import re
from pathlib import Path

from tektonmesh.core import forwarding, relaying
from tektonmesh.core.releases import RELEASES, is_certain


def test_only_known_codes_are_certain() -> None:
    assert is_certain("no_path") and is_certain("full")
    assert not is_certain("lost") and not is_certain("duplicate") and not is_certain("made up")


def test_every_code_that_forwarding_gives_is_in_the_table() -> None:
    source = "".join(Path(one.__file__).read_text() for one in (forwarding, relaying))
    given = re.findall(r'(?:return|code =|seq,|code: str =|FULL =) "([a-z_]+)"', source)
    assert len(given) > 8 and dict.fromkeys(given).keys() <= RELEASES.keys()


def test_only_a_destination_may_speak_of_itself() -> None:
    assert [name for name, one in RELEASES.items() if one.scope == "destination"] == ["full"]
