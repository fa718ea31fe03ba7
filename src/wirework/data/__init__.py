"""From text to token shards: corpora, the tokeniser, resumable batches.

No torch here. `prepare` runs all steps; the other names are its parts.
"""

from wirework.data.answers import ANSWERS, Answer
from wirework.data.batches import Batch, Batches, eval_batches
from wirework.data.bpe import END_OF_TEXT
from wirework.data.corpora import corpus_files, documents, is_prepared
from wirework.data.prepare import Prepared, open_prepared, prepare
from wirework.data.run_text import record_text, settings_of_run, text_for_runs, text_of_run
from wirework.data.shards import ShardWriter, Tokens
from wirework.data.tokenizer import Tokenizer, single_token, train_tokenizer

__all__ = [
    "ANSWERS",
    "END_OF_TEXT",
    "Answer",
    "Batch",
    "Batches",
    "Prepared",
    "ShardWriter",
    "Tokenizer",
    "Tokens",
    "corpus_files",
    "documents",
    "eval_batches",
    "is_prepared",
    "open_prepared",
    "prepare",
    "record_text",
    "settings_of_run",
    "single_token",
    "text_for_runs",
    "text_of_run",
    "train_tokenizer",
]
