"""The names of a log's files."""

# The first two are MetaSchedule's.
WORKLOADS_FILE, RECORDS_FILE = "database_workload.json", "database_tuning_record.json"
PROVENANCE_FILE = "provenance.json"
LOG_FILES = (PROVENANCE_FILE, WORKLOADS_FILE, RECORDS_FILE)
MAX_BYTES = 1 << 30  # of each file
QUARANTINE = "quarantine"
