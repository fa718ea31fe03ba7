from tasks_fixtures import code_tokenizer

__all__ = ["code_tokenizer"]
