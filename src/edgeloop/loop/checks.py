"""What a program and a configuration have to agree on, and how much RAM both need."""

from __future__ import annotations

import re
from pathlib import Path

from edgeloop.beside import JOURNAL
from edgeloop.data.features import Features, differences, from_spec
from edgeloop.data.item import Labels
from edgeloop.errors import BudgetError, CompileError, ConfigError, DataError
from edgeloop.loop.budget import RamPlan, plan_ram
from edgeloop.loop.config import Config
from edgeloop.options import parse_train
from edgeloop.program import Program
from edgeloop.runtime.feature_cache import sample_bytes


def plan_of(
    config: Config, program: Program, shape: tuple[int, ...], baseline: int,
    served: Program | None = None,
) -> tuple[RamPlan, str]:
    """Plan with what the program says of itself; and how features are kept, "" for not at all.

    Raises
    ------
    ConfigError
        Features are asked for that the program does not have.
    """
    weights = max(program.resident_bytes, program.plan.weight_bytes)
    if served is not None:  # another one serves, until this one does
        weights += max(served.resident_bytes, served.plan.weight_bytes) + served.plan.ram_bytes
    asked = config.train.features
    enrolled = Path(f"{config.path(config.state.path)}{JOURNAL}").exists()

    pipeline = features_of(config, program)
    plan_features(config, pipeline, shape)

    def planned(keep: str) -> RamPlan:
        each = (sample_bytes(program, keep), sample_bytes(program)) if keep else None
        return plan_ram(
            config, program.plan.ram_bytes, weights, shape, baseline=baseline, features=each,
            enrolled=enrolled, clip=pipeline.samples or 0, pipeline=pipeline.buffer_bytes())

    if not all(e in program.entries for e in ("features", "train_from", "eval_from")):
        if asked in ("auto", "off"):
            return planned(""), ""
        raise ConfigError(
            f'{config.name}: train.features: "{asked}" needs a program with a cut; compile it with '
            "edgeloop compile --cut, or leave the key out"
        )
    if asked == "auto":
        made = planned("f32")
        return (made, "f32") if made.fits else (planned(""), "")
    keep = "" if asked == "off" else asked
    return planned(keep), keep


def plan_features(config: Config, features: Features, shape: tuple[int, ...]) -> None:
    """Let a pipeline make its buffers for what [window] cuts, where that tells the channels.

    Raises
    ------
    ConfigError
        The windows do not fit the pipeline, or what it makes of them does not fit the program.
    """
    w = config.window
    if w is None or w.channels is None or features.samples is not None:
        return
    both = (w.channels, w.length) if w.channels_first else (w.length, w.channels)
    shapes = [both] if w.channels > 1 else [(w.length,), both]  # of one channel either may come
    wrong = ""
    for window in shapes:
        try:
            made = tuple(features.plan(window))
        except DataError as error:
            wrong = str(error)
            continue
        if made == shape:
            return
        wrong = f"features make {list(made)} of a window {list(window)}"
    raise ConfigError(
        f"{config.name}: window: {wrong}; the program takes {list(shape)}: change length, channels "
        "or [features]")


def input_shape(config: Config, program: Program) -> tuple[int, ...]:
    """Shape of one model input, without the batch.

    Raises
    ------
    ConfigError
        The program takes several inputs, or integers: the loop feeds one of floats.
    """
    inputs = program.metadata["inputs"]
    if len(inputs) != 1:
        raise ConfigError(
            f"{config.name}: model.program: takes inputs {', '.join(inputs)}; the loop feeds "
            "programs of one input"
        )
    ((name, only),) = inputs.items()
    if only["dtype"] != "f32":
        raise ConfigError(
            f"{config.name}: model.program: input '{name}' takes whole numbers; the loop feeds "
            "floats"
        )
    return tuple(only["shape"][1:])


def features_of(config: Config, program: Program) -> Features:
    """Build the program's feature pipeline; [features] may repeat it and must then agree.

    Raises
    ------
    ConfigError
        [features] describes another pipeline than the program was compiled with.
    """
    recorded = program.metadata.get("features")
    try:
        asked = None if config.features is None else from_spec(config.features)
    except DataError as error:
        raise ConfigError(f"{config.name}: {error}") from error
    if recorded is None:
        return asked or from_spec({"kind": "none"})
    made = from_spec(recorded)
    if asked is not None and asked.spec() != made.spec():
        wrong = "; ".join(differences(asked.spec(), made.spec()))
        raise ConfigError(
            f"{config.name}: features: differ from those the program was compiled with ({wrong}); "
            "leave [features] out to use the program's"
        )
    return made


def check_raw(config: Config, features: Features) -> None:
    """ConfigError when raw windows may not be stored and the features leave them as they are."""
    if config.privacy.raw == "never stored" and features.raw:
        raise ConfigError(
            f'{config.name}: privacy.raw: "never stored", but features of kind '
            f'"{features.kind}" keep what the window holds; use others (log-mel, mfcc, psd, fft, '
            'envelope, statistics), or set privacy.raw = "allowed"'
        )


def check_scalars(config: Config, program: Program) -> None:
    """ConfigError when [train] sets what the program cannot change."""
    if config.train.lr is not None and "lr" not in program.scalars:
        raise ConfigError(
            f"{config.name}: train.lr: the program has no learning rate that can be set at run "
            "time; leave it out"
        )


def check_method(config: Config, program: Program) -> None:
    """ConfigError when [train] method is not what the program was compiled to train."""
    if config.train.method is None:
        return
    where = f"{config.name}: train.method"
    try:
        wanted = [repr(m) for m in parse_train(config.train.method)]
    except CompileError as error:
        raise ConfigError(f"{where}: {error}") from error
    trained = [str(t) for t in program.metadata.get("train") or ()]
    alike = len(wanted) == len(trained) and all(
        t == w or re.sub(r"rank=\d+", "rank='auto'", t) == w
        for t, w in zip(trained, wanted, strict=True)
    )
    if not alike:
        raise ConfigError(
            f"{where}: {config.model.program} was compiled to train {', '.join(trained)}; compile "
            f"it again with --train {config.name}, or leave the key out"
        )


def labels_of(config: Config, program: Program) -> Labels:
    """Labels as the program's loss takes them.

    Raises
    ------
    ConfigError
        The program lacks an entry that the loop calls, or its loss takes other than one target
        for each sample.
    """
    loss, labels = program.metadata["loss"], program.metadata["labels"]
    if program.metadata.get("targets") is not None or program.metadata.get("rows_per_group") or (
        loss == "cross_entropy" and len(labels.get("shape") or [0]) != 1
    ):
        raise ConfigError(
            f"{config.name}: model.program: the loop trains on one label or target for each "
            f"sample; the loss {loss} of this program takes others. Train it through a Session"
        )
    trains = ("accumulate", "apply") if program.micro_batch else ("train",)
    missing = [e for e in (*trains, "eval", "predict") if e not in program.entries]
    if missing:
        raise ConfigError(
            f"{config.name}: model.program: has no entry {', '.join(missing)}; compile it with "
            "train, eval and predict (the default)"
        )
    if config.train.target == "input" and program.metadata["loss"] == "cross_entropy":
        raise ConfigError(
            f'{config.name}: train.target: "input" needs a model that reproduces its input; this '
            'program was compiled for cross_entropy: compile with loss mse, or use "label"'
        )
    if program.metadata["loss"] != "cross_entropy":
        return Labels(values=program.metadata["labels"]["shape"][1:])
    return Labels(program.metadata.get("classes"), count=classes_of(program))


def classes_of(program: Program) -> int | None:
    """How many classes a program tells apart; None: its answers are numbers."""
    if program.metadata["loss"] != "cross_entropy":
        return None
    scores = next(iter(program.entries["predict"].outputs.values()))
    return int(scores.shape[-1])


def misfit(
    config: Config, program: Program, baseline: int, served: Program | None = None
) -> str:
    """Why a program cannot do what a configuration asks; "" when it can."""
    try:
        check_raw(config, features_of(config, program))
        labels_of(config, program)
        check_scalars(config, program)
        check_method(config, program)
        plan_of(config, program, input_shape(config, program), baseline, served)[0].check()
    except (ConfigError, DataError, BudgetError) as error:
        return str(error).splitlines()[0]
    return ""
