"""LlamaIndex: published lists as a retriever, and `nightrank.rank` as a node postprocessor.

pip install 'nightrank[cpu,llama-index]'
"""

from __future__ import annotations

import asyncio
from typing import Any

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.bridge.pydantic import Field
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
except ImportError as error:
    raise ImportError(f"{error.name} is not installed: pip install 'nightrank[llama-index]'") from error

from nightrank.integrations.results import Unknown, find, metadata_of, rerank, tags_of, text_of
from nightrank.read import QueryList, Reader


class NightrankRetriever(BaseRetriever):
    """Nodes of a published list, with its scores; a prompt sees their titles and texts, but no other metadata."""

    def __init__(
        self,
        reader: Reader,
        *,
        similarity_top_k: int = 10,
        nearest: bool = False,
        unknown: Unknown = "empty",
        fallback: BaseRetriever | None = None,
        **options: Any,
    ) -> None:
        """Make a retriever.

        Args:
            reader: of `nightrank.read.open`; with follow=True it goes over to each newer run.
            similarity_top_k: how many nodes, best first.
            nearest: take the most similar published query for an unknown one.
            unknown: what an unknown query gives: "empty" or "raise" (QueryNotFound).
            fallback: retriever used for queries that the run does not have; replaces `unknown`.
            options: of BaseRetriever.
        """
        if similarity_top_k < 1:
            raise ValueError(f"similarity_top_k is {similarity_top_k}; ask for at least 1")
        if unknown not in ("empty", "raise"):
            raise ValueError(f"unknown is {unknown!r}; choose 'empty' or 'raise', or give a fallback")
        super().__init__(**options)
        self._reader, self._k, self._nearest = reader, similarity_top_k, nearest
        self._unknown, self._fallback = unknown, fallback

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self._find(query_bundle.query_str)
        if found is None and self._fallback:
            return list(self._fallback.retrieve(query_bundle))
        return self._nodes(found)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = await asyncio.to_thread(self._find, query_bundle.query_str)
        if found is None and self._fallback:
            return list(await self._fallback.aretrieve(query_bundle))
        return self._nodes(found)

    def _find(self, query: str) -> QueryList | None:
        unknown: Unknown = "empty" if self._fallback else self._unknown
        return find(self._reader, query, unknown=unknown, nearest=self._nearest)

    def _nodes(self, found: QueryList | None) -> list[NodeWithScore]:
        if found is None:
            return []
        nodes = []
        for one in found.passages[: self._k]:
            metadata = metadata_of(one, found)
            hidden = [
                name for name in metadata if name != "title" or not one.title
            ]  # no "title: None" in a prompt
            node = TextNode(
                id_=one.passage_id,
                text=text_of(one, found),
                metadata=metadata,
                excluded_llm_metadata_keys=hidden,
                excluded_embed_metadata_keys=hidden,
            )
            nodes.append(NodeWithScore(node=node, score=one.score))
        return nodes


class NightrankReranker(BaseNodePostprocessor):
    """Nodes of any retriever in the order of `nightrank.rank`, for queries that no night has seen.

    Nodes are copied, with `rank`, `logit` and `tags` in their metadata, which no prompt sees.
    """

    top_n: int | None = Field(default=None, ge=1, description="How many nodes to keep; None for all.")
    model: str | None = Field(default=None, description="A model's folder or name; None: the one that ships.")
    title_key: str = Field(default="title", description="Metadata that holds a node's title.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further ones of nightrank.rank.")

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores it."""
        return "NightrankReranker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("there is no query; give query_str or query_bundle")
        passages = [
            (str(one.node.metadata.get(self.title_key) or ""), one.node.get_content(MetadataMode.NONE))
            for one in nodes
        ]
        scores = [one.score for one in nodes]
        ranked = rerank(
            query_bundle.query_str, passages, scores, model=self.model, top_n=self.top_n, options=self.options
        )
        return [
            NodeWithScore(
                node=_noted(nodes[found.index], rank=rank, logit=found.logit, tags=tags_of(found.tags)),
                score=found.score,
            )
            for rank, found in enumerate(ranked, start=1)
        ]


def _noted(scored: NodeWithScore, **more: Any) -> Any:
    node = scored.node
    hidden = {
        name: [*dict.fromkeys([*getattr(node, name), *more])]
        for name in ("excluded_llm_metadata_keys", "excluded_embed_metadata_keys")
    }
    return node.model_copy(update={"metadata": node.metadata | more, **hidden})
