"""LangChain's own classes over a published night, and over the model that ships."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

import nightrank
from nightrank.integrations.langchain import NightrankReranker, NightrankRetriever
from nightrank.read import QueryNotFound, Reader
from tests.conftest import Night

QUERY = "  who wrote DUNE?"


class Fixed(BaseRetriever):
    """A retriever of one document."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(f"live: {query}")]


def both(retriever: BaseRetriever, query: str) -> list[Document]:
    """The same documents, called and awaited."""
    found = retriever.invoke(query)
    assert asyncio.run(retriever.ainvoke(query)) == found
    return found


def test_a_published_list_comes_as_documents(reader: Reader, night: Night) -> None:
    found = both(NightrankRetriever(reader=reader, k=2), QUERY)
    published = reader.lookup(QUERY)
    assert [one.page_content for one in found] == [one.text for one in published[:2]]
    assert [one.id for one in found] == [one.passage_id for one in published[:2]]
    first = found[0].metadata
    assert (first["rank"], first["score"], first["title"]) == (1, published[0].score, published[0].title)
    assert (first["run_id"], first["query"], first["stale_since"]) == (
        night.manifest.run_id,
        "Who wrote Dune",
        None,
    )
    assert first["tags"]["hop"] == published[0].tags.hop
    assert json.loads(json.dumps(first)) == first


def test_an_unknown_query_gives_nothing_raises_falls_back_or_takes_the_nearest(reader: Reader) -> None:
    unknown = "who wrote solaris"
    assert both(NightrankRetriever(reader=reader), unknown) == []
    with pytest.raises(QueryNotFound):
        NightrankRetriever(reader=reader, unknown="raise").invoke(unknown)
    with pytest.raises(QueryNotFound):
        asyncio.run(NightrankRetriever(reader=reader, unknown="raise").ainvoke(unknown))
    falling_back = NightrankRetriever(reader=reader, unknown="raise", fallback=Fixed())
    assert both(falling_back, unknown)[0].page_content == f"live: {unknown}"
    assert both(falling_back, QUERY)[0].metadata["rank"] == 1
    near = both(NightrankRetriever(reader=reader, nearest=True), "who wrote dunes")
    assert near[0].metadata["query"] == "Who wrote Dune"
    assert near[0].metadata["similarity"] < 1


def test_callbacks_see_the_fallback_within_the_retriever(reader: Reader) -> None:
    seen: list[tuple[str, bool]] = []

    class Handler(BaseCallbackHandler):
        def on_retriever_start(
            self, serialized: Any, query: str, *, parent_run_id: Any = None, **_: Any
        ) -> None:
            seen.append((query, parent_run_id is not None))

    retriever = NightrankRetriever(reader=reader, fallback=Fixed())
    retriever.invoke("unknown", config={"callbacks": [Handler()]})
    assert seen == [("unknown", False), ("unknown", True)]


DOCUMENTS = [
    Document("Paris is the capital of France.", metadata={"title": "Paris", "bm25": 3.0}),
    Document(
        "The tower was designed by engineers of Gustave Eiffel.",
        metadata={"title": "Eiffel Tower", "bm25": 2.0},
    ),
    Document("The Louvre is a museum.", metadata={"bm25": 1.0}),
]


def test_documents_are_ranked_live_as_nightrank_ranks_them() -> None:
    question = "who designed the eiffel tower"
    before = [one.model_copy(deep=True) for one in DOCUMENTS]
    reranker = NightrankReranker(top_n=2, score_key="bm25")
    found = list(reranker.compress_documents(DOCUMENTS, question))
    passages = [(one.metadata.get("title", ""), one.page_content) for one in DOCUMENTS]
    ours = nightrank.rank(question, passages, first_stage_scores=[3.0, 2.0, 1.0], top_n=2)
    assert [one.page_content for one in found] == [DOCUMENTS[one.index].page_content for one in ours]
    assert [one.metadata["score"] for one in found] == [one.score for one in ours]
    assert found[0].metadata["title"] == "Eiffel Tower"
    assert [one.metadata["rank"] for one in found] == [1, 2]
    assert before == DOCUMENTS
    assert list(asyncio.run(reranker.acompress_documents(DOCUMENTS, question))) == found
    assert list(reranker.compress_documents([], question)) == []


def test_without_scores_the_order_of_the_retriever_counts() -> None:
    question, given = "who designed the eiffel tower", DOCUMENTS[1:]
    found = NightrankReranker().compress_documents(given, question)
    passages = [(one.metadata.get("title", ""), one.page_content) for one in given]
    ours = nightrank.rank(question, passages, first_stage_scores=[0.0, -math.log(2)])
    assert [one.metadata["score"] for one in found] == [one.score for one in ours]
    assert [one.metadata["score"] for one in found] != [
        one.score for one in nightrank.rank(question, passages)
    ]


def test_without_langchain_the_message_names_the_extra() -> None:
    code = "import sys; sys.modules['langchain_core'] = None; import nightrank.integrations.langchain"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'nightrank[langchain]'" in done.stderr.splitlines()[-1]
