"""TransactionContext: a transaction whose body is that of a `with` statement."""

from __future__ import annotations

from journal._public import public
from journal._tables import bodies
from journal._tables.publisher import Publisher
from journal._tables.transaction import ReadWriteSet, Transaction
from journal.errors import JournalError


@public
class TransactionContext:
    """A context manager for the body of one transaction."""

    def __init__(
        self, transaction: Transaction, collected: ReadWriteSet, publisher: Publisher
    ) -> None:
        self._transaction = transaction
        self._collected = collected
        self._publisher = publisher
        self._has_begun = False
        self._body = bodies.Body()

    def __enter__(self) -> Transaction:
        bodies.refuse_in_body(id(self._publisher), "begin a transaction")
        if self._has_begun:
            raise JournalError("the transaction has been used; begin another one")
        self._has_begun = True
        bodies.enter(self._body, id(self._publisher))
        return self._transaction

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._leave_body()
        if error is None:
            publish = self._publisher.publish
            self._transaction.lsn = publish(
                self._collected.writes(), self._collected.check, self._collected.companions
            )

    async def __aenter__(self) -> Transaction:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._leave_body()
        if error is None:
            publish = self._publisher.publish_in_loop
            self._transaction.lsn = await publish(
                self._collected.writes(), self._collected.check, self._collected.companions
            )

    def _leave_body(self) -> None:
        self._body.runner = None
        self._collected.end()  # before the writes are published: none that follows would be
