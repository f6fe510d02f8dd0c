"""Contents of the site: its pages, in the order for a newcomer, and its reference.

The pages are plain Markdown files, which can be read without the site as well. The build appends
the names and command lines of the reference to them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

FRONT_PAGE = "README"
# For each caption of the sidebar, the title and the page of each entry.
PAGES: dict[str, dict[str, str]] = {
    "Learn": {
        "Overview": FRONT_PAGE,
        "Tutorial": "journal/docs/TUTORIAL",
    },
    "Do one thing": {
        "Examples": "journal/docs/EXAMPLES",
        "How-to guides: the journal": "journal/docs/HOWTO",
        "How-to guides: operation": "journal/docs/OPERATION",
        "How-to guides: mirrors": "journal/docs/MIRRORS",
        "How-to guides: moving to it": "journal/docs/MIGRATION",
        "How-to guides: sub-agents": "manager/docs/HOWTO",
        "How-to guides: workers elsewhere": "manager/docs/WORKERS",
        "LangGraph": "journal/adapters/docs/LANGGRAPH",
        "OpenAI Agents SDK": "journal/adapters/docs/OPENAI_AGENTS",
        "Pydantic AI": "journal/adapters/docs/PYDANTIC_AI",
        "A2A": "journal/adapters/docs/A2A",
        "Ways to keep agents durable": "journal/adapters/docs/COMPARISON",
    },
    "Understand": {
        "Explanation": "journal/docs/EXPLANATION",
        "Benchmarks": "tools/BENCHMARKS",
    },
    "Look up": {
        "API of the journal": "journal/docs/API",
        "API for tests": "journal/docs/TESTING",
        "Sub-agents: API and command": "manager/docs/REFERENCE",
        "The command journal-inspect": "tools/REFERENCE",
        "Format": "journal/docs/FORMAT",
        "Reliability": "journal/docs/RELIABILITY",
        "Errors": "journal/docs/ERRORS",
    },
    "The project": {
        "Changelog": "CHANGELOG",
        "Contributing": ".github/CONTRIBUTING",
        "Security": ".github/SECURITY",
    },
}


# The programs that a page ends with, in the folder beside it.
PROGRAMS = {
    "journal/docs/EXAMPLES": (
        *("examples/jobs.py", "examples/service.py", "examples/events.py", "examples/harness.py"),
    ),
}


class Module(NamedTuple):
    """The public names of a module, each once, grouped under headings of a page."""

    page: str
    name: str
    headings: dict[str, tuple[str, ...]]


MODULES = (
    Module(
        "journal/docs/API",
        "journal",
        {
            "Records": ("Journal", "Options", "Entry", "PackedRecord", "pack"),
            "Tables": (
                *("DurableDict", "Tables", "Table", "Transaction", "TransactionTable", "Key"),
                *("TableChanges", "TableChange", "TransactionContext"),
                *("TablesView", "TableView", "TableWrite", "tables_writes", "row_as_json"),
                "TABLES_APPLICATION_PREFIX",
            ),
            "State machines": (
                "DurableState",
                "StateMachine",
                "CowTable",
                "Snapshot",
                "Composite",
                "Checkpoint",
                "load_checkpoint",
            ),
            "In an event loop": ("AsyncHandle", "AsyncOpening"),
            "Reading from outside": (
                *("JournalReader", "SegmentInfo", "FrameInfo", "LargeRecord", "Finding"),
                *("JournalFile", "RecoveryPreview", "Refusal", "preview_recovery"),
            ),
            "Mirrors": (
                *("Mirror", "follow", "Follower", "restore", "RestoreReport"),
                *(
                    "verify_mirror",
                    "MirrorFinding",
                    "mirror_info",
                    "MirrorInfo",
                    "MirrorCheckpoint",
                ),
                *("reappend", "ReappendReport"),
                *("MirrorError", "MirrorReason", "FencedError", "MirrorObserver"),
            ),
            "Backup and repair": (
                *("backup", "BackupReport", "repair", "RepairReport"),
                *("read_salvaged", "SalvagedRecord"),
                *("put_back", "PutBackReport", "is_restored_mark"),
            ),
            "Figures": ("Stats", "Histogram", "LockStats", "Observer", "StatsSource"),
            "Errors": (
                *("JournalError", "BufferFullError", "CheckpointItemError", "ClosedError"),
                *("CompactedError", "ConflictError", "CorruptionError", "CutError", "FailedError"),
                *("FormatVersionError", "InterruptedCallError", "LockedError"),
                *(
                    "NotAJournalError",
                    "RecordError",
                    "SavePlaceError",
                    "TransactionTooLargeError",
                    "UnsafePathError",
                ),
                *("CutReason", "DamageReason", "FormatReason"),
            ),
            "The interface to the disk": (
                *("Disk", "Directory", "File", "FileMode", "Buffer", "HandlerSafeLock"),
            ),
            "Types of arguments and results": ("Record", "JSON", "StrPath", "Freeze"),
        },
    ),
    Module("journal/docs/API", "journal.prometheus", {"Prometheus": ("JournalCollector",)}),
    Module("journal/docs/API", "journal.otel", {"OpenTelemetry": ("JournalInstruments",)}),
    Module(
        "journal/docs/TESTING",
        "journal.testing",
        {
            "Crash exploration": (
                *("explore", "Bounds", "ExplorationReport", "Owner", "ManualOptions", "History"),
                "BrokenPromiseError",
            ),
            "The simulated disk": (
                *("SimulatedDisk", "SimulatedDirectory", "SimulatedFile"),
                *("Operation", "Mutation", "Query", "Medium"),
            ),
            "Outcomes of a power cut": (
                *("Outcome", "Change", "fates", "keep", "lose", "seeded", "drawn"),
            ),
        },
    ),
    Module(
        "journal/docs/TESTING",
        "journal.testing.machine",
        {"Hypothesis": ("CrashMachine", "Draw", "Step")},
    ),
    Module(
        "journal/docs/TESTING",
        "journal.testing.fixtures",
        {"Fixtures for pytest": ("crash_owner", "journal_dir", "simulated_disk")},
    ),
    Module(
        "manager/docs/REFERENCE",
        "manager",
        {
            "The manager": (
                *("SubAgentManager", "Limits", "AgentResult", "Changes"),
                *("FleetTransaction", "FleetTransactionContext"),
            ),
            "Workers": ("Worker", "WorkContext", "run_workers"),
            "Workers on other machines": ("Dispatcher", "serve", "WorkerInfo"),
            "Agents": ("Agent", "Status", "Progress", "Lease", "JSON", "StrPath"),
            "Reading from outside": (
                *("read_fleet", "read_fleets", "FleetView", "read_history", "AgentChange"),
                "follow_fleet",
                *(
                    "RECORD_FIELDS",
                    "OPTIONAL_RECORD_FIELDS",
                    "APPLICATION_PREFIX",
                    "AGENT_ID_PATTERN",
                    "fleet_machine",
                ),
            ),
            "Errors": (
                *(
                    "ManagerError",
                    "AlreadyTakenError",
                    "AmbiguousNameError",
                    "BudgetError",
                    "CapacityError",
                ),
                *("DispatchError", "LegacyError", "NameInUseError"),
                *("TransitionError", "UnknownAgentError"),
            ),
        },
    ),
)

# The adapters, each with the package that it needs. The reference has those that can be imported.
ADAPTERS = {
    "langgraph": Module(
        "journal/adapters/docs/LANGGRAPH",
        "journal.adapters.langgraph",
        {"Reference": ("JournalSaver", "SaverOpening", "JournalStore", "JournalCache")},
    ),
    "agents": Module(
        "journal/adapters/docs/OPENAI_AGENTS",
        "journal.adapters.openai_agents",
        {"Reference": ("JournalSession",)},
    ),
    "pydantic_ai": Module(
        "journal/adapters/docs/PYDANTIC_AI",
        "journal.adapters.pydantic_ai",
        {"Reference": ("JournalConversationStore",)},
    ),
    "a2a": Module(
        "journal/adapters/docs/A2A",
        "journal.adapters.a2a",
        {"Reference": ("JournalTaskStore", "JournalVersionedTaskStore")},
    ),
}


def importable_modules() -> tuple[Module, ...]:
    """Return the modules of the reference whose packages are installed."""
    return (*MODULES, *(module for client, module in ADAPTERS.items() if find_spec(client)))


# The classes that a program constructs. The others are opened, returned, raised or implemented, so
# the arguments of their constructors are not shown.
CALLED = (
    *("JournalSaver", "JournalStore", "JournalCache", "JournalSession"),
    *("JournalConversationStore", "JournalTaskStore", "JournalVersionedTaskStore"),
    *("Options", "CowTable", "HandlerSafeLock", "JournalCollector", "JournalInstruments"),
    *("Bounds", "ManualOptions", "Owner", "History", "SimulatedDisk"),
    *("Limits", "AgentResult"),
)


class Command(NamedTuple):
    """A click command, `name` in `module`, which users run as `program`."""

    page: str
    module: str
    name: str
    program: str


COMMANDS = (
    Command("manager/docs/REFERENCE", "manager._cli.cli", "app", "subagents"),
    Command("tools/REFERENCE", "journal_inspect.commands.cli", "cli", "journal-inspect"),
)
