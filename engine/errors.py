"""Everything that the engine raises.

EngineError
├── ModelError                the model file or what it needs
│   ├── ModelNotFound         no such file, name or source
│   ├── UnsupportedModel      architecture, tensor type or tokenizer that the engine does not know
│   ├── DownloadFailed        a source did not answer, or its bytes have another sha256
│   ├── ConversionError       a Hugging Face folder that cannot be converted
│   └── DiskFull              a file that the disk has no room for
├── TemplateError             a chat template that does not compile, or exceeds its limits
├── GrammarError              a schema or pattern that an answer cannot be held to
├── ContextTooLong            more tokens than the model reads
├── QueueFull                 admission refused; try again after `retry_after` seconds
├── UpstreamFailed            a server that a model was pointed at refuses, breaks off or does not answer
├── GenerationFailed          the native step failed under a running request
└── EngineClosed              the engine was closed under the request
"""


class EngineError(Exception):
    """Base of all errors of this package."""


class ModelError(EngineError):
    """The model file or what it needs."""


class ModelNotFound(ModelError):
    """No such file, name or source."""


class UnsupportedModel(ModelError):
    """An architecture, tensor type or tokenizer that the engine does not know."""


class DownloadFailed(ModelError):
    """A source did not answer, or its bytes have another sha256."""


class ConversionError(ModelError):
    """A Hugging Face folder that cannot be converted."""


class DiskFull(ModelError):
    """A file that the disk has no room for."""


class TemplateError(EngineError):
    """A chat template that does not compile, or exceeds its limits."""


class GrammarError(EngineError):
    """A schema or pattern that an answer cannot be held to."""


class ContextTooLong(EngineError):
    """More tokens than the model reads."""


class QueueFull(EngineError):
    """Admission refused; try again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamFailed(EngineError):
    """A server that a model was pointed at refuses, breaks off or does not answer."""


class GenerationFailed(EngineError):
    """The native step failed under a running request."""


class EngineClosed(EngineError):
    """The engine was closed under the request."""
