"""LlamaIndex's own classes over a published night, and over the model that ships."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

import nightrank
from nightrank.integrations.llama_index import NightrankReranker, NightrankRetriever
from nightrank.read import QueryNotFound, Reader
from tests.conftest import Night

QUERY = "who wrote DUNE ?"


class Fixed(BaseRetriever):
    """A retriever of one node."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text=f"live: {query_bundle.query_str}"), score=None)]


def texts(found: list[NodeWithScore]) -> list[str]:
    return [one.node.get_content(MetadataMode.NONE) for one in found]


def both(retriever: BaseRetriever, query: str) -> list[NodeWithScore]:
    """The same nodes, called and awaited."""
    found = retriever.retrieve(query)
    assert texts(asyncio.run(retriever.aretrieve(query))) == texts(found)
    return found


def test_a_published_list_comes_as_nodes(reader: Reader, night: Night) -> None:
    found = both(NightrankRetriever(reader, similarity_top_k=2), QUERY)
    published = reader.lookup(QUERY)
    assert texts(found) == [one.text for one in published[:2]]
    assert [one.score for one in found] == [one.score for one in published[:2]]
    assert [one.node.node_id for one in found] == [one.passage_id for one in published[:2]]
    assert found[0].node.metadata["run_id"] == night.manifest.run_id
    seen = found[0].node.get_content(MetadataMode.LLM)
    assert seen == f"title: {published[0].title}\n\n{published[0].text}"


@pytest.mark.parametrize("title", [None, ""])
def test_a_passage_without_a_title_shows_a_prompt_none(reader: Reader, title: str | None) -> None:
    published = reader.lookup(QUERY)
    untitled = dataclasses.replace(published, passages=(dataclasses.replace(published[0], title=title),))
    nodes = NightrankRetriever(reader)._nodes(untitled)
    assert nodes[0].node.get_content(MetadataMode.LLM) == published[0].text


def test_an_unknown_query_gives_nothing_raises_falls_back_or_takes_the_nearest(reader: Reader) -> None:
    unknown = "who wrote solaris"
    assert both(NightrankRetriever(reader), unknown) == []
    with pytest.raises(QueryNotFound):
        NightrankRetriever(reader, unknown="raise").retrieve(unknown)
    falling_back = NightrankRetriever(reader, unknown="raise", fallback=Fixed())
    assert texts(both(falling_back, unknown)) == [f"live: {unknown}"]
    assert both(falling_back, QUERY)[0].node.metadata["rank"] == 1
    near = both(NightrankRetriever(reader, nearest=True), "who wrote dunes")
    assert near[0].node.metadata["query"] == "Who wrote Dune"
    with pytest.raises(ValueError, match="similarity_top_k is 0; ask for at least 1"):
        NightrankRetriever(reader, similarity_top_k=0)
    with pytest.raises(ValueError, match="unknown is 'nothing'; choose 'empty' or 'raise'"):
        NightrankRetriever(reader, unknown="nothing")  # type: ignore[arg-type]


def nodes(scored: bool = True) -> list[NodeWithScore]:
    made = [
        TextNode(text="Paris is the capital of France.", metadata={"title": "Paris"}),
        TextNode(
            text="The tower was designed by engineers of Gustave Eiffel.", metadata={"title": "Eiffel Tower"}
        ),
        TextNode(text="The Louvre is a museum."),
    ]
    return [NodeWithScore(node=node, score=3.0 - n if scored else None) for n, node in enumerate(made)]


@pytest.mark.parametrize("scored", [True, False])
def test_nodes_are_ranked_live_as_nightrank_ranks_them(scored: bool) -> None:
    question, given = "who designed the eiffel tower", nodes(scored)
    reranker = NightrankReranker(top_n=2)
    found = reranker.postprocess_nodes(given, query_str=question)
    passages = [
        (one.node.metadata.get("title", ""), one.node.get_content(MetadataMode.NONE)) for one in given
    ]
    scores = [3.0, 2.0, 1.0] if scored else [0.0, -0.6931471805599453, -1.0986122886681098]
    ours = nightrank.rank(question, passages, first_stage_scores=scores, top_n=2)
    assert texts(found) == [passages[one.index][1] for one in ours]
    assert [one.score for one in found] == [one.score for one in ours]
    assert [one.node.metadata["rank"] for one in found] == [1, 2]
    assert "rank" not in given[1].node.metadata
    assert "rank" not in found[0].node.get_content(MetadataMode.LLM)
    again = asyncio.run(reranker.apostprocess_nodes(given, query_str=question))
    assert [one.score for one in again] == [one.score for one in found]
    assert reranker.postprocess_nodes([], query_str=question) == []
    with pytest.raises(ValueError, match="there is no query; give query_str or query_bundle"):
        reranker.postprocess_nodes(given)


def test_without_llama_index_the_message_names_the_extra() -> None:
    code = "import sys; sys.modules['llama_index'] = None; import nightrank.integrations.llama_index"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'nightrank[llama-index]'" in done.stderr.splitlines()[-1]
