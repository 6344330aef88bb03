"""The names of a log's files."""

# The first two are MetaSchedule's.
WORKLOADS, RECORDS = "database_workload.json", "database_tuning_record.json"
FILE = "provenance.json"
FILES = (FILE, WORKLOADS, RECORDS)
MOST_BYTES = 1 << 30  # of each
SET_ASIDE = "set-aside"
