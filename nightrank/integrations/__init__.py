"""Adapters for frameworks of retrieval-augmented generation, each an extra of its own: langchain, llama_index."""
