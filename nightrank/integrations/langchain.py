"""LangChain: published lists as a retriever, and `nightrank.rank` as a document compressor.

pip install 'nightrank[cpu,langchain]'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.retrievers import BaseRetriever
except ImportError as error:
    raise ImportError(f"{error.name} is not installed: pip install 'nightrank[langchain]'") from error
from pydantic import ConfigDict, Field

from nightrank.integrations.results import Unknown, find, metadata_of, rerank, tags_of, text_of
from nightrank.read import QueryList, Reader


class NightrankRetriever(BaseRetriever):
    """Documents of a published list: `page_content` is the text, `id` the passage's, `metadata` all else.

    Fields:
        reader: of `nightrank.read.open`; with follow=True it goes over to each newer run.
        k: how many documents, best first.
        nearest: take the most similar published query for an unknown one.
        unknown: what an unknown query gives: "empty" or "raise" (QueryNotFound).
        fallback: retriever used for queries that the run does not have; replaces `unknown`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reader: Reader
    k: int = Field(default=10, ge=1)
    nearest: bool = False
    unknown: Unknown = "empty"
    fallback: BaseRetriever | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        found = self._find(query)
        if found is None and self.fallback:
            return list(self.fallback.invoke(query, config={"callbacks": run_manager.get_child()}))
        return self._documents(found)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        from langchain_core.runnables import run_in_executor

        found = await run_in_executor(None, self._find, query)
        if found is None and self.fallback:
            return list(await self.fallback.ainvoke(query, config={"callbacks": run_manager.get_child()}))
        return self._documents(found)

    def _find(self, query: str) -> QueryList | None:
        unknown: Unknown = "empty" if self.fallback else self.unknown
        return find(self.reader, query, unknown=unknown, nearest=self.nearest)

    def _documents(self, found: QueryList | None) -> list[Document]:
        if found is None:
            return []
        return [
            Document(id=one.passage_id, page_content=text_of(one, found), metadata=metadata_of(one, found))
            for one in found.passages[: self.k]
        ]


class NightrankReranker(BaseDocumentCompressor):
    """Documents of any retriever in the order of `nightrank.rank`, for queries that no night has seen.

    Documents are copied, with `rank`, `score`, `logit` and `tags` in their metadata.

    Fields:
        top_n: how many documents to keep; None for all.
        model: a model's folder or name on the Hub; None: the one that ships with Nightrank.
        title_key: metadata that holds a document's title.
        score_key: metadata that holds the retriever's score, higher is better; without it its order counts.
        options: further ones of `nightrank.rank`, such as {"backend": "torch"}.
    """

    top_n: int | None = Field(default=None, ge=1)
    model: str | None = None
    title_key: str = "title"
    score_key: str = ""
    options: dict[str, Any] = Field(default_factory=dict)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The documents, most relevant first.

        Raises:
            As `nightrank.rank`.
        """
        passages = [(str(one.metadata.get(self.title_key) or ""), one.page_content) for one in documents]
        scores = [one.metadata.get(self.score_key) for one in documents]
        ranked = rerank(query, passages, scores, model=self.model, top_n=self.top_n, options=self.options)
        return [
            documents[found.index].model_copy(
                update={
                    "metadata": documents[found.index].metadata
                    | {"rank": rank, "score": found.score, "logit": found.logit, "tags": tags_of(found.tags)}
                }
            )
            for rank, found in enumerate(ranked, start=1)
        ]
