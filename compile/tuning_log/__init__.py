"""Tuning logs: for each target a folder with a MetaSchedule database and its provenance.

==============================  ==================================================================
file                            holds
==============================  ==================================================================
``database_workload.json``      a line for each task: TVM's hash, and the workload (MetaSchedule)
``database_tuning_record.json`` a line for each measurement: the task's line, trace, times, target
``provenance.json``             the device, versions, runs; each task's result and winning line
``quarantine/``                 damaged lines and logs that do not match, as they were
==============================  ==================================================================

None of this imports tvm: the logs' digest is part of an artifact's key, which takes milliseconds.
"""

from mvlm.compile.tuning_log.database import Database, TuningRecord
from mvlm.compile.tuning_log.paths import (
    find_logs,
    log_folders,
    log_name,
    logs_digest,
    logs_for_target,
    read_log_files,
    shipped_logs_folder,
    user_logs_folder,
)
from mvlm.compile.tuning_log.provenance import (
    LogKey,
    Provenance,
    TaskResult,
    TuningRun,
    read_provenance,
    utc_now,
)
from mvlm.compile.tuning_log.tuning_database import (
    Log,
    TuningDatabase,
    open_database,
    read_log,
)

__all__ = [
    "Database",
    "Log",
    "LogKey",
    "Provenance",
    "TaskResult",
    "TuningDatabase",
    "TuningRecord",
    "TuningRun",
    "find_logs",
    "log_folders",
    "log_name",
    "logs_digest",
    "logs_for_target",
    "open_database",
    "read_log",
    "read_log_files",
    "read_provenance",
    "shipped_logs_folder",
    "user_logs_folder",
    "utc_now",
]
