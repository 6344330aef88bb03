"""The names of a log's files."""

# The first two are MetaSchedule's.
WORKLOADS, RECORDS = "database_workload.json", "database_tuning_record.json"
FILE = "provenance.json"
SET_ASIDE = "set-aside"
