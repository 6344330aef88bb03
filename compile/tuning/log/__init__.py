"""Logs of tuning: a folder for each target, as MetaSchedule's databases with where they come from.

==============================  ==================================================================
file                            holds
==============================  ==================================================================
``database_workload.json``      a line for each task: TVM's hash, and the workload (MetaSchedule)
``database_tuning_record.json`` a line for each measurement: the task's line, trace, times, target
``provenance.json``             the device as it was found, versions, runs; for each task what came
                                of it, and which line won
``set-aside/``                  lines and whole logs that do not belong here, kept as they were
==============================  ==================================================================

None of this imports tvm: compiling looks a log up to name what it makes.
"""

from mvlm.compile.tuning.log.folder import Log, WritableLog, read_log
from mvlm.compile.tuning.log.match import Subject
from mvlm.compile.tuning.log.places import (
    find_logs,
    log_name,
    log_places,
    logs_about,
    logs_digest,
    read_files,
    shipped_logs,
    user_logs,
)
from mvlm.compile.tuning.log.provenance import Outcome, Provenance, Run, read_provenance
from mvlm.compile.tuning.log.tables import Measured, Tables

__all__ = [
    "Log",
    "Measured",
    "Outcome",
    "Provenance",
    "Run",
    "Subject",
    "Tables",
    "WritableLog",
    "find_logs",
    "log_name",
    "log_places",
    "logs_about",
    "logs_digest",
    "read_files",
    "read_log",
    "read_provenance",
    "shipped_logs",
    "user_logs",
]
