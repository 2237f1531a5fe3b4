"""Make the demo's audio: a training set for the base model and the clips that are shipped.

Development only: needs the programs espeak-ng (base voices) and flite (the new speaker).
Everything is drawn from fixed seeds, so the same program versions give the same files.

    python examples/keyword/make_data.py training build/keyword/training.npz
    python examples/keyword/make_data.py clips examples/keyword/clips
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tempfile
import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE = 16000
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
CLASSES = (*WORDS, "silence", "unknown")
# Words of the class "unknown".
OTHER = (
    "bed", "bird", "cat", "dog", "happy", "house", "tree", "wow", "zero", "one", "two", "three",
    "four", "five", "six", "seven", "eight", "nine", "back", "forward", "follow", "learn", "visual",
    "marvin", "sheila", "table", "water", "music", "green", "paper",
)  # fmt: skip

ACCENTS = (
    "en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd",
    "en-029", "en-us-nyc",
)  # fmt: skip
TRAIN_VARIANTS = (
    "", "+m1", "+m2", "+m4", "+m5", "+m7", "+f1", "+f2", "+f4", "+Alex", "+Andy", "+Annie",
    "+Denis", "+Gene", "+Hugo", "+Jacky", "+Lee", "+Michael", "+adam", "+anika", "+belinda",
    "+boris", "+caleb", "+david", "+ed", "+edward", "+iven", "+john", "+linda", "+max", "+pablo",
    "+paul", "+quincy", "+rob", "+steph", "+travis",
)  # fmt: skip
# Voices that the base model never hears in training.
TEST_VARIANTS = (
    "+m3", "+m6", "+m8", "+f3", "+f5", "+Mike", "+antonio", "+benjamin", "+robert", "+sandro",
    "+shelby", "+victor",
)  # fmt: skip

SPEAKER = "slt"  # a voice of flite


@dataclass(frozen=True)
class Utterance:
    """One call of a speech synthesiser and what is done to its sound."""

    program: str
    voice: str
    word: str
    label: str
    speed: float  # espeak-ng: words per minute; flite: duration stretch
    pitch: float  # espeak-ng: 0..99; flite: mean F0 in Hz
    peak: float  # loudest sample of the finished clip, full scale 1
    snr_db: float  # noise inside the clip
    seed: int


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("training", "clips"))
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    if args.what == "training":
        make_training(args.out)
    else:
        make_clips(args.out)


def make_training(out: Path, per_class: int = 480) -> None:
    """Write int16 clips of the base voices (training and validation) as one npz file."""
    arrays = {}
    for part, seed, count, variants in (
        ("train", 1, per_class, TRAIN_VARIANTS),
        ("valid", 2, 40, TEST_VARIANTS),
    ):
        clips = synthesise(draw_base(seed, count, variants))
        arrays[f"{part}_samples"] = np.concatenate([clip for _, clip in clips])
        arrays[f"{part}_lengths"] = np.array([len(clip) for _, clip in clips])
        arrays[f"{part}_labels"] = np.array([CLASSES.index(u.label) for u, _ in clips])
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, **arrays)


def make_clips(out: Path) -> None:
    """Write the shipped WAV files and their manifest."""
    sets = {
        "base/anchor": draw_anchors(),
        "base/test": draw_base(13, 10, TEST_VARIANTS),
        "speaker/stream": draw_speaker(21, 16),
        "speaker/test": draw_speaker(23, 10),
    }
    manifest = {}
    for name, utterances in sets.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.wav"):
            old.unlink()
        number = dict.fromkeys(CLASSES, 0)
        for utterance, clip in synthesise(utterances):
            path = folder / f"{utterance.label}-{number[utterance.label]:02}.wav"
            number[utterance.label] += 1
            write_wav(path, clip)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            manifest[path.relative_to(out).as_posix()] = digest
    if len(set(manifest.values())) != len(manifest):
        raise SystemExit("two clips are the same: the sets would not be disjoint")
    text = json.dumps(dict(sorted(manifest.items())), indent=1)
    (out / "MANIFEST.json").write_text(text + "\n")


def draw_anchors() -> list[Utterance]:
    """Draw what the device rehearses: 18 of each word, 6 of "silence", 48 of "unknown".

    "unknown" is many words; with 18 of them it was what a new speaker made the model forget.
    """
    drawn = draw_base(12, 18, TRAIN_VARIANTS)
    few = [u for i, u in enumerate(drawn) if u.label != "silence" or i < 6 * len(CLASSES)]
    return few + draw_base(14, 30, TRAIN_VARIANTS, ("unknown",))


def draw_base(
    seed: int, per_class: int, variants: tuple[str, ...], classes: tuple[str, ...] = CLASSES
) -> list[Utterance]:
    """Draw utterances of the base voices, `per_class` of each class."""
    rng = np.random.default_rng(seed)
    return [
        Utterance(
            program="espeak-ng",
            voice=ACCENTS[rng.integers(len(ACCENTS))] + variants[rng.integers(len(variants))],
            word=pick_word(label, rng),
            label=label,
            speed=rng.uniform(130, 210),
            pitch=rng.uniform(20, 80),
            **draw_recording(label, rng),
        )
        for _ in range(per_class)
        for label in classes
    ]


def draw_speaker(seed: int, per_class: int) -> list[Utterance]:
    """Draw utterances of the new speaker: pace, pitch and loudness change from one to the next."""
    rng = np.random.default_rng(seed)
    return [
        Utterance(
            program="flite",
            voice=SPEAKER,
            word=pick_word(label, rng),
            label=label,
            speed=rng.uniform(0.8, 1.2),
            pitch=F0[SPEAKER] * rng.uniform(0.85, 1.2),
            **draw_recording(label, rng),
        )
        for _ in range(per_class)
        for label in CLASSES
    ]


F0 = {"slt": 170, "awb": 130, "rms": 100, "kal16": 105}  # mean pitch of flite's voices (Hz)


def pick_word(label: str, rng: np.random.Generator) -> str:
    """Return the word to say; drawn anew for "unknown"."""
    return str(rng.choice(OTHER)) if label == "unknown" else label


def draw_recording(label: str, rng: np.random.Generator) -> dict[str, float]:
    """Draw how a clip was recorded: loudness, noise."""
    quiet = label == "silence"
    return {
        "peak": float(10 ** rng.uniform(-3.0, -1.5) if quiet else rng.uniform(0.15, 0.9)),
        "snr_db": float(rng.uniform(15, 40)),
        "seed": int(rng.integers(2**32)),
    }


def synthesise(utterances: list[Utterance]) -> list[tuple[Utterance, np.ndarray]]:
    """Speak all utterances: int16 clips [n] trimmed to the spoken part, in order."""
    with ThreadPoolExecutor(2) as pool:
        return list(zip(utterances, pool.map(record, utterances), strict=True))


def record(utterance: Utterance) -> np.ndarray:
    """Return one utterance as an int16 clip [n]."""
    rng = np.random.default_rng(utterance.seed)
    if utterance.label == "silence":
        clip = noise(int(rng.uniform(0.2, 0.3) * RATE), rng)
    else:
        clip = trim(speak(utterance))
        power = np.mean(clip**2)
        hiss = noise(len(clip), rng)
        clip = clip + hiss * np.sqrt(power / np.mean(hiss**2) / 10 ** (utterance.snr_db / 10))
    clip = clip * (utterance.peak / np.abs(clip).max())
    return np.round(clip * 32767).astype(np.int16)


def speak(utterance: Utterance) -> np.ndarray:
    """Run the synthesiser: float64 samples [n] at 16 kHz."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        if utterance.program == "espeak-ng":
            command = ["espeak-ng", "-v", utterance.voice, "-s", f"{utterance.speed:.0f}",
                       "-p", f"{utterance.pitch:.0f}", "-w", file.name, utterance.word]  # fmt: skip
        else:
            command = ["flite", "-voice", utterance.voice, "--setf",
                       f"duration_stretch={utterance.speed:.3f}", "--setf",
                       f"int_f0_target_mean={utterance.pitch:.1f}",
                       "-t", utterance.word, "-o", file.name]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        with wave.open(file.name) as sound:
            rate = sound.getframerate()
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
    return resample(samples, rate)


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Change the sample rate to 16 kHz by cutting or extending the spectrum."""
    if rate == RATE:
        return samples
    count = round(len(samples) * RATE / rate)
    return np.fft.irfft(np.fft.rfft(samples), count) * (count / len(samples))


def trim(samples: np.ndarray, below_db: float = 32, longest: float = 0.7) -> np.ndarray:
    """Cut what lies `below_db` under the loudest 10 ms at both ends; at most `longest` seconds."""
    frame = RATE // 100
    power = np.mean(samples[: len(samples) // frame * frame].reshape(-1, frame) ** 2, axis=1)
    loud = np.flatnonzero(power > power.max() / 10 ** (below_db / 10))
    first, last = max(0, loud[0] - 1), loud[-1] + 2
    return samples[first * frame : last * frame][: int(longest * RATE)]


def noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise [count] of variance 1 whose power falls as 1/f^a, a drawn from 0..1.5."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hz = np.fft.rfftfreq(count, 1 / RATE)
    spectrum /= np.maximum(hz, 50.0) ** (rng.uniform(0, 1.5) / 2)
    samples = np.fft.irfft(spectrum, count)
    return samples / samples.std()


def write_wav(path: Path, clip: np.ndarray) -> None:
    """Write int16 samples as a mono WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(clip.astype("<i2").tobytes())


if __name__ == "__main__":
    main()
