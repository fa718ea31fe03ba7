from circuits_fixtures import _one_thread, ablation, corpus, random_model, rows, task, wired

__all__ = ["_one_thread", "ablation", "corpus", "random_model", "rows", "task", "wired"]
