"""Weakenings of outputs: what commands have printed on workers in other processes."""

from __future__ import annotations

from proof.weakenings import Weakening

OUTPUTS = ("tests/remote/test_outputs.py",)

ALL_OF = (
    Weakening(
        "output_given_to_any_manager",
        "manager/_remote/serving.py",
        "            if not self._courier.heeds(message):\n",
        "            if False:\n",
        OUTPUTS,
    ),
    Weakening(
        "output_read_without_bound",
        "manager/_remote/serving.py",
        "self._shelf is not None and len(self._tasks) < READS_MAX",
        "self._shelf is not None",
        OUTPUTS,
    ),
    Weakening(
        "clients_read_output_without_bound",
        "manager/_remote/inquiries.py",
        "        if self._asking >= READS_MAX:\n",
        "        if False:\n",
        OUTPUTS,
    ),
    Weakening(
        "output_removed_before_its_agent",
        "manager/_remote/inquiries.py",
        "                await self._desk.settle(lsn)\n",
        "",
        OUTPUTS,
    ),
    Weakening(
        "removals_wait_without_bound",
        "manager/_remote/inquiries.py",
        "        if len(self._forgotten) >= _FORGOTTEN_MAX:\n",
        "        if False:\n",
        OUTPUTS,
    ),
    Weakening(
        "huge_pieces_are_taken",
        "manager/_remote/pieces.py",
        "        if len(data) > PIECE_BYTES_MAX:\n",
        "        if False:\n",
        OUTPUTS,
    ),
    Weakening(
        "pieces_beyond_any_position",
        "manager/_remote/pieces.py",
        "            if piece.position < POSITION_MAX:",
        "            if True:",
        OUTPUTS,
    ),
    Weakening(
        "full_files_end_a_stream",
        "manager/_remote/pieces.py",
        "if len(parts) == 1 or position < (parts[0].number + 1) * size:",
        "if True:",
        OUTPUTS,
    ),
    Weakening(
        "lengths_of_an_earlier_start_believed",
        "manager/_run/facts.py",
        '    if agent.status == "running":\n        return {}\n',
        "",
        ("tests/remote/test_requests.py",),
    ),
)
