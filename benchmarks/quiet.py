"""One thread by default, and no warnings: shapes here are below what a floor allows, on purpose."""

import logging
import os

import torch


def quiet() -> None:
    """Set up a child process as the command is."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    logging.getLogger("wirework").setLevel("ERROR")
