"""Everything that this package raises.

IngestError
├── LibraryError
│   ├── LibraryLocked            another process owns the data folder
│   ├── LibraryClosed            used after close()
│   └── DocumentsFolderMissing   the watched folder is gone; nothing is taken for deleted
├── RecordError                  the SQLite file cannot be read, written or understood
│   ├── RecordTooNew             written by a newer Quarry
│   └── StorageFull              no space left, or a read-only disk; reads go on
├── IndexDamaged                 a derived index does not answer as the record says; it gets rebuilt
│   └── IndexChanging            a row went away while the index was searched; ask again
├── EmbedderMismatch             vectors of another model or another length
├── PartitionError               one document cannot be read; the others go on
│   ├── UnsupportedFormat        no reader for this kind of file
│   ├── UnreadableFile           not a regular file, not permitted, or gone
│   ├── UndecodableText          no encoding fits the bytes
│   ├── LimitExceeded            too large, too deep, too many parts
│   └── PartitionCrashed         the child process died or ran out of time
└── FileChanging                 the file changed while it was read; the next pass takes it
"""


class IngestError(Exception):
    """Base of all errors of this package."""


class LibraryError(IngestError):
    """The library as a whole cannot be used."""


class LibraryLocked(LibraryError):
    """Another process owns the data folder."""


class LibraryClosed(LibraryError):
    """The library was used after close()."""


class DocumentsFolderMissing(LibraryError):
    """The watched folder is gone; nothing is taken for deleted."""


class RecordError(IngestError):
    """The SQLite file cannot be read, written or understood."""


class RecordTooNew(RecordError):
    """The record was written by a newer Quarry."""


class StorageFull(RecordError):
    """No space left, or a read-only disk; reads go on."""


class IndexDamaged(IngestError):
    """A derived index does not answer as the record says; it gets rebuilt."""


class IndexChanging(IndexDamaged):
    """A row went away while the index was searched; ask again."""


class EmbedderMismatch(IngestError):
    """Vectors of another model or another length."""


class PartitionError(IngestError):
    """One document cannot be read; the others go on."""


class UnsupportedFormat(PartitionError):
    """No reader for this kind of file."""


class UnreadableFile(PartitionError):
    """Not a regular file, not permitted, or gone."""


class UndecodableText(PartitionError):
    """No encoding fits the bytes."""


class LimitExceeded(PartitionError):
    """Too large, too deep, or too many parts."""


class PartitionCrashed(PartitionError):
    """The child process died or ran out of time."""


class FileChanging(IngestError):
    """The file changed while it was read; the next pass takes it."""
