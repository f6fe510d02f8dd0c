"""TransactionContext: a transaction whose body is that of a `with` statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal._public import public
from journal._tables import bodies
from journal._tables.transaction import Transaction
from journal.errors import JournalError

if TYPE_CHECKING:
    from journal._tables.tables import Tables


@public
class TransactionContext:
    """A context manager for the body of one transaction."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._collected = tables._new_set(tables._rows.chunks_between)
        self._transaction = Transaction(tables._rows, self._collected, tables._parts)
        self._has_begun = False
        self._body = bodies.Body()

    def __enter__(self) -> Transaction:
        self._tables._refuse_in_body("begin a transaction")
        if self._has_begun:
            raise JournalError("the transaction has been used; begin another one")
        self._has_begun = True
        bodies.enter(self._body, id(self._tables))
        return self._transaction

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._leave_body()
        if error is None:
            publish = self._tables._publisher.publish
            self._transaction.lsn = publish(
                self._collected.writes(), self._collected.check, self._collected.companions
            )

    async def __aenter__(self) -> Transaction:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._leave_body()
        if error is None:
            publish = self._tables._publisher.publish_in_loop
            self._transaction.lsn = await publish(
                self._collected.writes(), self._collected.check, self._collected.companions
            )

    def _leave_body(self) -> None:
        self._body.runner = None
        self._collected.end()  # before the writes are published: none that follows would be
