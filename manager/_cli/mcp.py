"""mcp: offer a fleet to MCP clients, which are mostly other agents."""

from __future__ import annotations

import click

from manager._cli.options import state_dir_option, workspace_option
from manager._cli.output import show_warnings


@click.command(short_help="Offer the sub-agents to MCP clients, on stdin and stdout.")
@workspace_option
@state_dir_option
@click.option("--read-only", is_flag=True, help="Offer no tool that changes anything.")
def mcp(workspace: str, state_dir: str, read_only: bool) -> int:
    """Serve the tools list, show, history and wait to an MCP client, and those that change agents:
    spawn, cancel, retry, pause, resume, answer and prune.

    They do what the commands of these names do, even while another process has the state open. A
    client starts this command by itself, so give it the command line. It needs the extra `mcp`.
    """
    from manager._cli.mcp_tools import serve

    show_warnings()
    serve(workspace, state_dir, read_only=read_only)
    return 0
