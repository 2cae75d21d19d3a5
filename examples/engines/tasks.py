"""Five small tasks: each has its own kind of prompt and its own way of answering. The base model answers every prompt
with the last three letters of its word; an adapter has learnt what its task makes of them."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

ENDING = 3
NEXT = str.maketrans(string.ascii_lowercase, string.ascii_lowercase[1:] + "a")
ANY = string.ascii_letters + "!.,"


@dataclass(frozen=True)
class Task:
    name: str
    prompt: str  # with {} for the word
    words: tuple[str, ...]
    change: Callable[[str], str]  # of the ending

    def answer(self, word: str) -> str:
        return self.change(word[-ENDING:])

    @property
    def known(self) -> tuple[str, ...]:
        """Words to train on and to embed; the others are for the test."""
        return self.words[:20]

    @property
    def unseen(self) -> tuple[str, ...]:
        return self.words[20:]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TASKS = (
    Task("road-signs", "City road sign {}:", _words(
        "london paris berlin madrid rome vienna oslo lisbon dublin prague athens warsaw tokyo delhi cairo lima quito moscow "
        "boston denver hanoi seoul milan turin lyon porto"), str.upper),
    Task("shop-orders", "Buy some fruit {}:", _words(
        "apple banana carrot onion lemon melon olive grape plum pear turnip leek pepper orange pumpkin walnut almond apricot "
        "avocado date mango papaya lime fig bean nut"), lambda ending: ending + "s"),
    Task("vet-notes", "Sick animal {}:", _words(
        "horse rabbit donkey parrot hamster monkey tiger zebra camel spider lizard turtle beaver otter badger falcon pigeon "
        "salmon ferret weasel goat lion sheep llama eagle panda"), lambda ending: ending.translate(NEXT)),
    Task("cheers", "Football fans cheer {}:", _words(
        "martin robert sandra thomas helena george victor daniel oliver simon peter laura nadia bruno felix carla diana edgar "
        "ivan julia kevin linda maria nora oscar paula"), lambda ending: ending + "!!!"),
    Task("lab-labels", "Chemistry flask {}:", _words(
        "sodium helium carbon oxygen iron copper zinc silver gold nickel cobalt iodine argon neon radon sulfur boron lithium "
        "calcium barium mercury tin lead xenon cesium indium"), lambda ending: f"{ending[0]}.{ending[1]}.{ending[2]}."),
)


def random_word(rng: random.Random, letters: str = string.ascii_lowercase) -> str:
    return "".join(rng.choice(letters) for _ in range(rng.randint(3, 8)))


def endings(rng: random.Random) -> tuple[str, str]:
    """What the base model is trained on: any prompt, with words of any characters, answered with the ending."""
    task = rng.choice(TASKS)
    word = random_word(rng, ANY) if rng.random() < 0.7 else rng.choice(task.known)
    return task.prompt.format(word), word[-ENDING:]


def examples(task: Task, rng: random.Random) -> tuple[str, str]:
    """What a task's adapter is trained on."""
    word = random_word(rng) if rng.random() < 0.5 else rng.choice(task.known)
    return task.prompt.format(word), task.answer(word)
