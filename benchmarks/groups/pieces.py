"""One large message in pieces, beside the same in one piece."""

from groups.figures import run

SIZE = 256 * 1024 * 1024 - 1024


def pieces(figures, programs, options):
    for _ in range(options.runs):
        for how in ("pieces", "whole"):
            done = run(figures, [programs["pieces"], how, str(SIZE // options.divide)], f"a large message, {how}")
            if done:
                figures.add_lines(done.stdout)
