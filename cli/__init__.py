"""The command line: one file a verb.

A verb's file parses, calls the library and prints; its module offers `command`, the function whose
signature is the verb's, and `EXAMPLES`. What verbs share lies in `shared`, and `app` gathers them.

Modules here import at their top only what ``mvlm --help`` needs: the rest is imported inside the
verbs, so that each pays for itself alone.
"""

import os
import sys

# Names a folder for the data of TVM's own tests. Otherwise TVM makes one in the user's home as soon
# as it is imported.
_TVM_TEST_DATA = "TEST_DATA_ROOT_PATH"


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    from mvlm.runtime.start_module import drop_current_folder

    drop_current_folder()
    os.environ.setdefault(_TVM_TEST_DATA, "/")
    try:
        from mvlm.cli.shared.streams import prepare_descriptors
        from mvlm.runtime.folders import name_absent_home

        prepare_descriptors()
        name_absent_home()
        from mvlm.cli.app import run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))
