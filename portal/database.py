"""The only place that knows the dialect: SQLite or PostgreSQL."""

import json
import os
import time
from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    CompoundSelect,
    Connection,
    Dialect,
    Engine,
    FromClause,
    MetaData,
    Select,
    String,
    Subquery,
    Table,
    and_,
    bindparam,
    cast,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from portal import ownership

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

WRITING = "portal_writing"  # execution option of a transaction that will write

ENGINE_OPTIONS = {
    "hide_parameters": True,  # logs and error lines must not show values
    "pool_pre_ping": True,  # replaces connections that a restart of the database has closed
}

# Chunks keep bulk transactions short, so that a member's save never waits long. SQLite has only one writer at a time,
# so a pause between chunks lets the save in. Measured: PERFORMANCE, known traps.
_CHUNK = {"sqlite": 5_000, "postgresql": 10_000}
_PAUSE = {"sqlite": 0.010, "postgresql": 0.0}  # seconds
_LONG_PAUSE = {"sqlite": 0.110, "postgresql": 0.0}  # a waiting writer retries every 100 ms after the first 228
_LONG_EACH = 4  # one in so many pauses is long


def prepare(engine: Engine) -> None:
    """Configure SQLite for use by several processes; other databases are left as they are.

    WAL, a busy timeout, foreign keys, and BEGIN IMMEDIATE for transactions that write: SQLAlchemy's default loses
    updates between processes. A new file is readable by its owner only, and deleted data is overwritten.
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "do_connect")
    def keep_private(_dialect: object, _record: object, arguments: list[Any], _keywords: object) -> None:
        file = Path(arguments[0])
        if file.is_absolute():  # else it is in memory
            # Never open an existing file: closing it would drop this process's SQLite locks on it.
            with suppress(OSError):
                os.close(ownership.create(file))

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # so that the driver begins no transaction
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 30000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # saved data survives a power cut; costs 4 ms a transaction
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA main.secure_delete = ON")  # erased addresses do not remain in the file
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITING)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def clock(session: Session) -> datetime:
    """Return the database's own time in UTC, which is the same for all hosts."""
    if session.get_bind().dialect.name == "postgresql":
        now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        return now.astimezone(UTC)
    return datetime.now(UTC)  # SQLite is on this host


def insert(session: Session | Connection, table: FromClause | type[Any]) -> "sqlite.Insert | postgresql.Insert":
    """Return an INSERT that supports ON CONFLICT, which both dialects spell alike."""
    if _dialect(session) == "sqlite":
        return sqlite.insert(table)  # type: ignore[arg-type]
    from sqlalchemy.dialects import postgresql  # takes a tenth of a command's start

    return postgresql.insert(table)  # type: ignore[arg-type]


def chunk_size(session: Session | Connection) -> int:
    """Return how many rows one bulk transaction writes."""
    return _CHUNK[_dialect(session)]


def pause(session: Session | Connection, *, place: int = 1) -> None:
    """Let other writers in between two chunks; every fourth place pauses long enough for any waiting writer."""
    lengths = _PAUSE if place % _LONG_EACH else _LONG_PAUSE
    time.sleep(lengths[_dialect(session)])


def written_in_chunks(session: Session, items: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield the items for one transaction at a time, and let other writers in between two of them."""
    for number, chunk in enumerate(chunked(items, chunk_size(session))):
        if number:
            pause(session)
        yield chunk


class IdRange(NamedTuple):
    """The first and the last id that one transaction writes.

    The condition is applied to every table in a join, so that no table is scanned from end to end for each chunk.
    """

    first: int
    last: int

    def holds(self, *columns: Any) -> ColumnElement[bool]:
        """Return the condition that all given columns are within the range."""
        return and_(*(column.between(self.first, self.last) for column in columns))


def chunked(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of at most ``size`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def stream(
    connection: Connection, statement: Select[Any], *, size: int = 10_000
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Yield blocks of rows from the driver's cursor, in constant memory.

    Types are not converted: on SQLite a boolean is 0 or 1 and a time is text. Read only columns that are alike in both.
    """
    compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    values = compiled.construct_params()
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "postgresql":
        cursor = driver.cursor(name="portal_stream")  # a named cursor is kept at the server
        bound: object = values
    else:
        cursor = driver.cursor()
        bound = [values[name] for name in compiled.positiontup or ()]
    try:
        cursor.execute(str(compiled), bound)
        while block := cursor.fetchmany(size):
            yield block
    finally:
        cursor.close()


_Statement = Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]]


class CompiledQuery:
    """A SELECT that every request runs: it is compiled once and then executed on the driver's cursor.

    SQLAlchemy takes longer to look up a compiled statement than the database takes to answer it.
    """

    def __init__(self, statement: _Statement) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def rows(self, session: Session, **values: object) -> list[Any]:
        """Return the rows, for the given values of the bind parameters. This runs in a transaction of its own."""
        engine: Any = session.get_bind().engine
        compiled = self._compiled.get(engine.dialect.name)
        if compiled is None:
            compiled = self._compiled[engine.dialect.name] = _Compiled(self._statement, engine.dialect)
        return compiled.rows(engine, values)


class BulkInsert:
    """An INSERT of many rows: compiled once, and then sent on the driver's cursor.

    SQLAlchemy takes longer to bind the values of a row than SQLite takes to write it. ``or_ignore`` leaves a row alone
    that is there already; ``replaces`` names the columns that it gets of the new one.
    """

    def __init__(self, table: type[Any], *, or_ignore: bool = False, replaces: Sequence[str] = ()) -> None:
        self._table: Any = inspect(table).local_table
        self._or_ignore, self._replaces = or_ignore, replaces
        self._compiled: dict[tuple[str, tuple[str, ...]], _CompiledInsert] = {}

    def execute(self, session: Session, rows: Sequence[Mapping[str, Any]], **common: Any) -> None:
        """Insert rows, which have the same columns, in the transaction that is open; ``common`` is alike in all."""
        if not rows:
            return
        connection = session.connection()
        key = connection.dialect.name, (*rows[0], *common)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = _CompiledInsert(self._statement(connection), connection.dialect, key[1])
        connection.exec_driver_sql(compiled.text, compiled.parameters(rows, common))

    def _statement(self, connection: Connection) -> Any:
        statement: Any = insert(connection, self._table)
        if self._or_ignore:
            return statement.on_conflict_do_nothing()
        if self._replaces:
            values = {name: statement.excluded[name] for name in self._replaces}
            return statement.on_conflict_do_update(index_elements=list(self._table.primary_key), set_=values)
        return statement


class _CompiledInsert:
    """The text of an INSERT in one dialect, and how rows become what the driver takes."""

    def __init__(self, statement: Any, dialect: Dialect, columns: Sequence[str]) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=list(columns))
        self.text, self._order = str(compiled), compiled.positiontup
        self._defaults = {each.key: each.default.arg for each in compiled.insert_prefetch}
        converters = {
            name: each.type.dialect_impl(dialect).bind_processor(dialect) for name, each in compiled.binds.items()
        }
        self._converters = {name: convert for name, convert in converters.items() if convert}

    def parameters(self, rows: Iterable[Mapping[str, Any]], common: Mapping[str, Any]) -> list[Any]:
        alike = {**self._defaults, **common}
        for name in self._converters.keys() & alike.keys():
            alike[name] = self._converters[name](alike[name])
        converters = [(name, convert) for name, convert in self._converters.items() if name not in alike]
        values = [{**alike, **row} for row in rows]
        for name, convert in converters:
            for each in values:
                each[name] = convert(each[name])
        return values if self._order is None else list(map(itemgetter(*self._order), values))


class _Compiled:
    """A statement compiled for one dialect, with its bound values and the converters of its columns."""

    def __init__(self, statement: _Statement, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        asked = (name for name, each in compiled.binds.items() if each.required)
        state = compiled.construct_expanded_state(dict.fromkeys(asked))
        self._text, self._order, self._bound = state.statement, state.positiontup, state.parameters
        columns = statement.selected_columns
        make_row: Any = namedtuple  # not a type that could be declared
        self._row = make_row("Row", columns.keys())
        converters = [each.type.dialect_impl(dialect).result_processor(dialect, None) for each in columns]
        self._converters = [(number, each) for number, each in enumerate(converters) if each]
        self._error: Any = dialect.loaded_dbapi.Error

    def rows(self, engine: Engine, values: Mapping[str, object]) -> list[Any]:
        bound = {**self._bound, **values}
        parameters = tuple(bound[name] for name in self._order) if self._order is not None else bound
        pooled = engine.raw_connection()
        try:
            cursor = pooled.cursor()
            for listener in engine.dispatch.before_cursor_execute:  # statements are counted here too
                listener(None, cursor, self._text, parameters, None, False)
            cursor.execute(self._text, parameters)
            found = cursor.fetchall()
            cursor.close()
        except self._error as error:
            raise DBAPIError.instance(self._text, None, error, self._error, hide_parameters=True) from error
        finally:
            pooled.close()
        return self._converted(found)

    def _converted(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        columns: list[Iterable[Any]] = list(zip(*rows, strict=True))
        for number, convert in self._converters if rows else ():
            columns[number] = map(convert, columns[number])
        return list(map(self._row._make, zip(*columns, strict=True)))


ROSTER = Table("portal_roster", MetaData(), Column("canonical", String(254), primary_key=True), prefixes=["TEMPORARY"])


def load_roster(connection: Connection, canonicals: Iterable[str]) -> int:
    """Fill the connection's temporary table ROSTER with distinct addresses; return how many it holds.

    It writes nothing that other connections could wait for. The caller is in a transaction that does not write.
    """
    driver: Any = connection.connection.driver_connection
    connection.exec_driver_sql("DROP TABLE IF EXISTS portal_roster")
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("CREATE TEMPORARY TABLE portal_roster_lines (canonical text)")
        with driver.cursor() as cursor, cursor.copy("COPY portal_roster_lines (canonical) FROM STDIN") as copy:
            for block in chunked(canonicals, 10_000):  # an address has no tab and no line end
                copy.write("".join(f"{each}\n" for each in block).replace("\\", "\\\\"))
        connection.exec_driver_sql("ANALYZE portal_roster_lines")
        connection.exec_driver_sql(
            "CREATE TEMPORARY TABLE portal_roster AS "
            "SELECT DISTINCT canonical::varchar(254) AS canonical FROM portal_roster_lines"
        )
        connection.exec_driver_sql("DROP TABLE portal_roster_lines")
        connection.exec_driver_sql("ANALYZE portal_roster")
    else:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE portal_roster (canonical TEXT PRIMARY KEY) WITHOUT ROWID")
        driver.executemany("INSERT OR IGNORE INTO portal_roster VALUES (?)", ((each,) for each in canonicals))
    count: int = connection.exec_driver_sql("SELECT count(*) FROM portal_roster").scalar_one()
    return count


def _dialect(session: Session | Connection) -> str:
    return session.dialect.name if isinstance(session, Connection) else session.get_bind().dialect.name


@contextmanager
def dedicated(session: Session) -> Iterator[Session]:
    """Yield a session on its own connection, which keeps its temporary tables across transactions."""
    engine: Any = session.get_bind()
    with engine.connect() as connection, Session(connection) as own:
        yield own


def fill_temporary(session: Session, table: Table, query: Select[Any]) -> None:
    """Make a temporary table and fill it, in place of one left on the connection by earlier work.

    PostgreSQL fills tables without an index faster, and needs their statistics.
    """
    session.execute(text(f"DROP TABLE IF EXISTS {table.name}"))
    if _dialect(session) == "sqlite":
        table.create(session.connection())
        session.execute(table.insert().from_select(table.columns.keys(), query))
        return
    bare = Table(
        table.name, MetaData(), *(Column(each.name, each.type) for each in table.columns), prefixes=["TEMPORARY"]
    )
    bare.create(session.connection())
    session.execute(bare.insert().from_select(bare.columns.keys(), query))
    session.execute(text(f"ALTER TABLE {table.name} ADD PRIMARY KEY ({', '.join(table.primary_key.columns.keys())})"))
    session.execute(text(f"ANALYZE {table.name}"))


def table_of(
    session: Session | Connection, name: str, columns: Sequence[str], rows: Iterable[Sequence[str]]
) -> Subquery:
    """Return rows of texts as a table that a query can join: one parameter, however many rows."""
    values = bindparam(None, json.dumps([list(row) for row in rows]), String)
    if _dialect(session) == "postgresql":
        each = func.json_array_elements(cast(values, JSON)).table_valued("value")
        cells: list[ColumnElement[Any]] = [each.c.value.op("->>")(number) for number in range(len(columns))]
    else:
        each = func.json_each(values).table_valued("value")
        cells = [func.json_extract(each.c.value, f"$[{number}]") for number in range(len(columns))]
    labelled = (cast(cell, String).label(column) for cell, column in zip(cells, columns, strict=True))
    return select(*labelled).subquery(name)


def code_points(session: Session | Connection) -> str:
    """Return the collation that sorts text by code point."""
    return "C" if _dialect(session) == "postgresql" else "BINARY"
