"""The commands that make and measure model files: quantize, imatrix, perplexity."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from engine.quantize import Quantized

ModelArgument = Annotated[Path, typer.Argument(help="A GGUF file of a model that writes text.")]
TextArgument = Annotated[Path, typer.Argument(help="A text in UTF-8, of a thousand tokens or more.")]
ContextOption = Annotated[int, typer.Option("--context", min=8, help="Tokens of a chunk.")]
ChunksOption = Annotated[int | None, typer.Option("--chunks", min=1, help="Read only the first chunks.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, max=256, help="Threads; none: all processors.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("quantize")(quantize_command)
    app.command("imatrix")(imatrix_command)
    app.command("perplexity")(perplexity_command)


def quantize_command(
    source: Annotated[Path, typer.Argument(help="A GGUF file, best in F16, BF16 or F32.")],
    out: Annotated[Path, typer.Argument(help="The GGUF file to write.")],
    type_name: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s "
            "q5_k_m q6_k iq4_nl iq4_xs",
        ),
    ],
    imatrix: Annotated[
        Path | None, typer.Option("--imatrix", help="Importance matrix, GGUF or .dat: see quarry imatrix.")
    ] = None,
    requantize: Annotated[
        bool, typer.Option("--requantize", help="Allow a source that is quantised already.")
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Write a model anew in fewer bits: q4_k_m is the usual choice, q8_0 loses next to nothing."""
    from engine.importance import read_importance
    from engine.quantize import mixture_named, quantize
    from rag.terminal import console, count_progress

    terminal = console()
    mixture = mixture_named(type_name)
    importance = read_importance(imatrix) if imatrix is not None else None
    with count_progress() as bars:
        task = bars.add_task("Quantising, million weights", total=None)
        result = quantize(
            source,
            out,
            mixture,
            importance=importance,
            requantize=requantize,
            n_threads=threads,
            progress=lambda done, total, _: bars.update(
                task, completed=done // 1_000_000, total=total // 1_000_000
            ),
        )
    for line in _describe(result):
        terminal.print(line)
    terminal.print(
        f"Wrote {out} ({result.n_bytes / 1e6:.1f} MB, {result.bits_per_weight:.2f} bits a weight)."
    )


def _describe(result: "Quantized") -> list[str]:
    lines = [
        f"{n} of the matrices are {got}, not {wished}: their rows are not whole blocks of {wished}"
        for (wished, got), n in sorted(result.fallbacks.items())
    ]
    if result.without_importance:
        first = ", ".join(result.without_importance[:3])
        lines.append(f"The importance matrix has nothing for {len(result.without_importance)}: {first} ...")
    return lines


def perplexity_command(
    model: ModelArgument,
    file: TextArgument,
    context: ContextOption = 512,
    chunks: ChunksOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Measure how well a model foresees a text; lower is better, and compares files of one model."""
    from engine.perplexity import measure_perplexity
    from rag.terminal import console, count_progress

    terminal = console()
    with count_progress() as bars:
        task = bars.add_task("Reading", total=None)

        def show(done: int, total: int, so_far: float) -> None:
            bars.update(task, completed=done, total=total, description=f"Perplexity so far {so_far:.4f}")

        result = measure_perplexity(
            model, read_text(file), n_ctx=context, max_chunks=chunks, n_threads=threads, progress=show
        )
    terminal.print(
        f"Perplexity {result.value:.4f} +/- {result.error:.4f} "
        f"({result.n_scored} tokens scored in {result.n_chunks} chunks of {context})"
    )


def imatrix_command(
    model: ModelArgument,
    file: TextArgument,
    out: Annotated[Path, typer.Argument(help="The importance matrix to write, as GGUF.")],
    context: ContextOption = 512,
    chunks: ChunksOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Find out from a text which weights matter, for quarry quantize --imatrix."""
    from engine.perplexity import collect_importance
    from rag.terminal import console, count_progress

    terminal = console()
    with count_progress() as bars:
        task = bars.add_task("Reading", total=None)
        result = collect_importance(
            model,
            read_text(file),
            out,
            text_name=file.name,
            n_ctx=context,
            max_chunks=chunks,
            n_threads=threads,
            progress=lambda done, total, _: bars.update(task, completed=done, total=total),
        )
    terminal.print(f"Wrote {out} from {result.n_chunks} chunks of {context} tokens.")


def read_text(path: Path) -> str:
    """Read a text file. Raises: BadText naming the place that is no UTF-8; OSError."""
    from rag.errors import BadText

    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise BadText(f"{path} is not UTF-8 (byte {e.start}); save it as UTF-8") from e
