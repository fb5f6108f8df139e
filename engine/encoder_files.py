"""Open the files of models that embed or rank: encoders, and decoders that are used as such."""

from engine import _native
from engine.embedding_prompts import Prompts, find_prompts
from engine.errors import UnsupportedModel
from engine.rerank_judge import YesNoJudge
from engine.reranker import CrossEncoder, PairScorer
from engine.tokenizer import Tokenizer, load_tokenizer

AnyEncoder = _native.Encoder | _native.CausalEncoder


def open_embedding(
    file: _native.GgufFile, name: str, pool: _native.ThreadPool
) -> tuple[AnyEncoder, Tokenizer, Prompts]:
    """Load a model of vectors; `name` is the file's. Raises: UnsupportedModel, GgufError."""
    encoder = _open(file, pool, "embeddings")
    tokenizer = load_tokenizer(file, ends_texts=isinstance(encoder, _native.CausalEncoder))
    check_vocabulary(tokenizer, encoder.vocab_size)
    if encoder.pooling == "rank":
        raise UnsupportedModel("the model ranks pairs of texts: set it as the rerank model")
    return encoder, tokenizer, find_prompts(file, name)


def open_scorer(file: _native.GgufFile, pool: _native.ThreadPool) -> PairScorer:
    """Load a reranker. Raises: UnsupportedModel, GgufError."""
    encoder = _open(file, pool, "reranking")
    tokenizer = load_tokenizer(file)
    check_vocabulary(tokenizer, encoder.vocab_size)
    if isinstance(encoder, _native.CausalEncoder):
        return YesNoJudge(file, tokenizer, encoder)
    return CrossEncoder(tokenizer, encoder)


def check_vocabulary(tokenizer: Tokenizer, n_embeddings: int) -> None:
    """Refuse a tokenizer with tokens that the model has not. Raises: UnsupportedModel."""
    if tokenizer.vocab_size > n_embeddings:
        raise UnsupportedModel(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but the model only {n_embeddings} embeddings"
        )


def _open(file: _native.GgufFile, pool: _native.ThreadPool, purpose: str) -> AnyEncoder:
    architecture = file.get("general.architecture") if "general.architecture" in set(file.keys()) else None
    if architecture in _native.encoder_architectures:
        return _native.Encoder(file, pool)
    try:
        return _native.CausalEncoder(file, pool)
    except _native.GgufError as error:
        # The reader of decoders knows of chat alone.
        known = f"for {purpose}; supported are {', '.join(_native.encoder_architectures)}, "
        raise UnsupportedModel(str(error).replace("for chat; supported are ", known)) from error
