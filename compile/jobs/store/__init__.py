"""The store: one folder, or one prefix of an object store, that all machines share.

====================  ==============================================================
``blobs/sha256/``     files by their digest, so that what is equal is kept once
``artifacts/``        a document for each finished artifact, written last
``weights/``          the same for packed weights
``leases/``           which run works on which step
``runs/``             what became of each run
``tmp/``              what is being written; on a disk only
====================  ==============================================================

Store contents are untrusted: documents are bounded and typed, file names are made here and never
taken from a document, and digests are verified on read.
"""

from mvlm.compile.jobs.store.store import Store, open_store

__all__ = ["Store", "open_store"]
