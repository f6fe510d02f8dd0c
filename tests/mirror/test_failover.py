"""`python tools/proof failover`: writers of a mirror that are killed, stopped and cut off."""

from __future__ import annotations

import pytest
from proof import failover

from tests.installed import find_command, import_package

pytestmark = pytest.mark.slow
NEEDED = {"s3": ("weed", "obstore"), "nats": ("nats-server", "nats")}


@pytest.mark.parametrize(
    ("store", "ack", "fault"),
    [
        ("directory", "remote", "kill"),
        ("directory", "local", "stop"),
        ("s3", "local", "kill"),
        ("s3", "remote", "stop"),
        ("s3", "remote", "server"),
        ("s3", "remote", "answers"),
        ("nats", "remote", "kill"),
        ("nats", "local", "stop"),
        ("nats", "remote", "server"),
    ],
)
def test_no_fault_loses_a_record(
    store: str, ack: str, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """No acknowledged record is lost, but those that the mirror's lag shows, and each writer that
    was overtaken is refused, whatever is killed or stopped. More is run by hand."""
    if needed := NEEDED.get(store):
        find_command(needed[0])
        import_package(needed[1])
    options = {"store": store, "ack": ack, "fault": fault, "times": "3", "seed": "7"}
    code = failover.main([word for name, value in options.items() for word in (f"--{name}", value)])
    text = capfd.readouterr().out
    assert (code, "0 lost" in text) == (0, True), text
