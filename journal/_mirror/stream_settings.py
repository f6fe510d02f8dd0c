"""The settings of a JetStream stream that a mirror needs."""

from __future__ import annotations

from typing import Any

MAKE_STREAM = (
    "Make it: nats stream add NAME --subjects NAME.log --storage file --replicas 3 --discard new "
    "--retention limits --defaults"
)
ENABLE_JETSTREAM = (
    "Enable it: nats-server --jetstream, or jetstream {} in the configurations of the servers, and "
    "jetstream: enabled in the account of the user, if there are accounts"
)
_MESSAGE_BYTES_MIN = 8 << 10  # less would make a large commit thousands of entries


def unfit(config: Any) -> list[str]:
    """Return what to change in a stream that may drop messages, or that others may write to."""
    subjects = config.subjects or []
    problems = {
        "it must have one subject, without wildcards": len(subjects) != 1
        or any(sign in subjects[0] for sign in "*>"),
        "it must not be a mirror, or have sources": config.mirror or config.sources,
        "retention must be limits": str(_value(config.retention)) != "limits",
        "discard must be new": str(_value(config.discard)) != "new",
        "max_age must be unlimited": config.max_age,
        "max_msgs_per_subject must be unlimited": config.max_msgs_per_subject > 0,
        "storage must be file": str(_value(config.storage)) != "file",
        f"max_msg_size must be at least {_MESSAGE_BYTES_MIN}": 0
        < (config.max_msg_size or -1)
        < _MESSAGE_BYTES_MIN,
        "it must not be sealed": config.sealed,
        "it must acknowledge": config.no_ack,
        "deleting a message must be allowed": config.deny_delete,
    }
    return [text for text, is_found in problems.items() if is_found]


def _value(setting: Any) -> object:
    return getattr(setting, "value", setting)
