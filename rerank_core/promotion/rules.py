"""When a candidate model takes the serving model's place: a decision from what was measured of both.

Every check must pass. A check that cannot be made, such as of rankings before the first night, passes and says so; but
without judged sets no model is promoted.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

from pydantic import Field
from pydantic.dataclasses import dataclass

from rerank_core.config.operation import Promotion
from rerank_core.config.toml import STRICT
from rerank_core.evaluation.significance import LEVEL, mean_at_least

SMALLEST_MARGIN = 1e-6
"""Of nDCG: three million queries."""

MIN_SPREAD = 1e-3
"""Mean distance between a query's highest and lowest logit, below which a model gives all the same score."""

HEADROOM, MIN_FRESH = 1.2, 0.1
"""A night is predicted that many times as long, since logs grow; and this share of its pairs is scored at least."""

NO_SLOWER = 1.05
"""A model that takes at most that many times the serving model's time is no slower, as far as can be measured."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class OnSet:
    """What was measured of a model on a judged set."""

    ndcg: dict[str, Finite]  # nDCG@10 by query_id
    shortcut_gap: Finite  # nDCG@10 that it loses without tags, or with wrong ones; 0 if it reads none
    calibration_error: Finite  # expected, of the published score
    auc: Finite | None  # of its pairs; None if all are relevant, or none is
    spread: Finite  # of its logits: the mean distance between a query's highest and lowest
    pairs: int
    failed: int  # pairs that it could not score


@dataclass(frozen=True, config=STRICT)
class JudgedSet:
    """Both models on one judged set."""

    name: str
    candidate: OnSet
    serving: OnSet


@dataclass(frozen=True, config=STRICT)
class Speed:
    """Pairs a second of both models, measured in turns."""

    candidate: Finite
    serving: Finite


@dataclass(frozen=True, config=STRICT)
class LastNight:
    """What the last night took, and the time that it may take."""

    run_id: str
    seconds: Finite  # wall time
    scoring_seconds: Finite  # summed over workers
    workers: Finite  # that were busy, on average
    fresh_pairs: int  # that were scored
    pairs: int  # with those whose scores were reused
    until_deadline: Finite | None  # seconds from its start; None without plan.finish_by


@dataclass(frozen=True, config=STRICT)
class Rankings:
    """The candidate's lists of last night's queries against the published ones."""

    queries: int
    overlap: Finite | None  # mean overlap at 10, of lists longer than 10; None if there is none
    correlation: Finite | None  # mean Kendall's tau
    skipped: str = ""  # why they were not compared


@dataclass(frozen=True, config=STRICT)
class Measures:
    """Everything that was measured of a candidate and the serving model."""

    candidate: str  # its id
    serving: str  # "" is the model that ships
    problem: str = ""  # why the candidate could not be measured: it is broken
    sets: tuple[JudgedSet, ...] = ()
    speed: Speed | None = None
    last_night: LastNight | None = None
    rankings: Rankings | None = None


class Check(NamedTuple):
    """One condition of a promotion."""

    name: str
    value: float | None  # None: not measured
    limit: float | None
    passed: bool
    sentence: str  # what was found, for people


class Decision(NamedTuple):
    """Whether a candidate is promoted, and why."""

    promoted: bool
    checks: tuple[Check, ...]

    @property
    def reason(self) -> str:
        """What speaks against it, or that nothing does."""
        against = [check.sentence for check in self.checks if not check.passed]
        return "; ".join(against) or f"all {len(self.checks)} checks passed"


def decide(measures: Measures, limits: Promotion) -> Decision:
    """Whether the candidate may serve."""
    if measures.problem:
        broken = Check("runs", None, None, False, f"the candidate cannot be used: {measures.problem}")
        return Decision(False, (broken,))
    if not measures.sets:
        unseen = (
            "promotion.judged_sets names no set, and a model is never promoted unseen; name judged sets, or promote it "
            "by hand with --force"
        )
        return Decision(False, (Check("judged_sets", 0, 1, False, unseen),))
    checks = [check for judged in measures.sets for check in _of_set(judged, limits)]
    checks += [_speed(measures, limits), *_rankings(measures.rankings, limits)]
    return Decision(all(check.passed for check in checks), tuple(checks))


def _of_set(judged: JudgedSet, limits: Promotion) -> list[Check]:
    return [_scores(judged), _label_order(judged), _quality(judged, limits), *_held(judged, limits)]


def _scores(judged: JudgedSet) -> Check:
    """Finite scores that differ."""
    own = judged.candidate
    if own.failed > judged.serving.failed:
        text = f"it could not score {own.failed:,} of {own.pairs:,} pairs of {judged.name}, such as with a logit of NaN"
        return Check(f"scores on {judged.name}", own.failed, judged.serving.failed, False, text)
    text = f"logits of a query of {judged.name} differ by {own.spread:.3g} on average"
    passed = own.spread >= MIN_SPREAD
    if not passed:
        text += f", below {MIN_SPREAD:g}: it gives nearly every passage the same score"
    return Check(f"scores on {judged.name}", own.spread, MIN_SPREAD, passed, text)


def _label_order(judged: JudgedSet) -> Check:
    """Relevant passages score higher."""
    name, auc = f"label order on {judged.name}", judged.candidate.auc
    if auc is None:
        return Check(name, None, 0.5, True, f"not checked: {judged.name} has no pairs of both kinds")
    passed = auc >= 0.5
    text = f"a relevant passage of {judged.name} scores above another with probability {auc:.3f}"
    if not passed:
        text += ", below 0.5: the order of its labels may be the wrong one (id2label in config.json)"
    return Check(name, auc, 0.5, passed, text)


def _quality(judged: JudgedSet, limits: Promotion) -> Check:
    """Not worse: the mean difference in nDCG@10 is above the margin, with 95 % confidence."""
    name, margin = f"nDCG@10 on {judged.name}", -limits.margin
    ours, theirs = judged.candidate.ndcg, judged.serving.ndcg
    assert ours.keys() == theirs.keys(), f"{judged.name}: the models were measured on other queries"
    differences = [ours[query] - theirs[query] for query in sorted(ours)]
    if not differences:
        return Check(
            name, None, margin, False, f"{judged.name} has no judged queries, so it shows nothing; judge some"
        )
    low, count = mean_at_least(differences), len(differences)
    means = [math.fsum(by_query.values()) / count for by_query in (ours, theirs)]
    text = (
        f"nDCG@10 on {judged.name} is {means[0]:.4f}, the serving model's {means[1]:.4f}: {means[0] - means[1]:+.4f}, "
        f"at least {low:+.4f} with {1 - LEVEL:.0%} confidence, over {count:,} queries"
    )
    passed = low >= margin
    if not passed:
        text += f"; it must be {margin:+.4f} at least"
        if least_margin(count) > limits.margin:
            text += _too_few(count, limits.margin)
    return Check(name, low, margin, passed, text)


def least_margin(queries: int) -> float:
    """The smallest margin at which a model with the same lists passes; that many queries may miss rarer losses."""
    return float(1 - LEVEL ** (1 / queries))


def fewest_queries(margin: float) -> int | None:
    """How many queries show of a model with the same lists that it loses no more; None: no number of use does."""
    if margin < SMALLEST_MARGIN:
        return None
    return 1 if margin >= 1 else math.ceil(math.log(LEVEL) / math.log1p(-margin))


def _too_few(count: int, margin: float) -> str:
    """What to do about a set that would turn a model with the same lists down."""
    needed, allowed = fewest_queries(margin), math.ceil(1010 * least_margin(count)) / 1000
    more = f"judge {needed:,} or more, or " if needed else ""
    return (
        f". Even equal lists on {count:,} queries do not show that: {more}set promotion.margin to {allowed:g}"
    )


def _held(judged: JudgedSet, limits: Promotion) -> list[Check]:
    """Shortcut gap and calibration: within the limit, or no worse than the serving model's."""
    checks = []
    for label, field, limit in (
        ("shortcut gap", "shortcut_gap", limits.max_shortcut_gap),
        ("calibration error", "calibration_error", limits.max_calibration_error),
    ):
        value, serving = getattr(judged.candidate, field), getattr(judged.serving, field)
        bound = max(limit, serving)
        passed = value <= bound
        text = f"the {label} on {judged.name} is {value:.4f}, the serving model's {serving:.4f}"
        if not passed:
            text += f"; at most {bound:.4f} is accepted"
        checks.append(Check(f"{label} on {judged.name}", value, bound, passed, text))
    return checks


def predicted_seconds(speed: Speed, night: LastNight) -> float:
    """Wall time of a night like the last one with the candidate, once its first night has scores to reuse."""
    ratio = speed.candidate / speed.serving
    rate = night.fresh_pairs / night.scoring_seconds if night.fresh_pairs and night.scoring_seconds else 0.0
    fresh = max(night.fresh_pairs, MIN_FRESH * night.pairs)
    needed = fresh / (rate * ratio if rate else speed.candidate)
    return HEADROOM * (night.seconds + (needed - night.scoring_seconds) / max(1.0, night.workers))


def _speed(measures: Measures, limits: Promotion) -> Check:
    speed, night = measures.speed, measures.last_night
    if speed is None:
        return Check("speed", None, None, True, "not checked: there were no pairs to measure it by")
    slowdown = speed.serving / speed.candidate
    text = (
        f"it scores {speed.candidate:,.0f} pairs a second, the serving model {speed.serving:,.0f}: {slowdown:.2f} "
        "times the time a pair"
    )
    if night is None or night.until_deadline is None:
        passed = slowdown <= limits.max_slowdown
        text += "" if passed else f"; at most {limits.max_slowdown:g} is accepted"
        return Check("speed", slowdown, limits.max_slowdown, passed, text)
    needed = predicted_seconds(speed, night)
    passed = needed <= night.until_deadline or slowdown <= NO_SLOWER
    text += (
        f"; a night like run {night.run_id} takes about {needed:,.0f} s, and the deadline "
        f"{'leaves' if passed else 'leaves only'} {night.until_deadline:,.0f} s"
    )
    return Check("speed", needed, night.until_deadline, passed, text)


def _rankings(found: Rankings | None, limits: Promotion) -> list[Check]:
    """Lists of last night's queries that readers would still know."""
    if found is None or found.skipped:
        why = found.skipped if found else "no night was published yet"
        return [Check("last night's lists", None, limits.min_overlap_at_10, True, f"not checked: {why}")]
    checks = []
    if found.correlation is not None:
        passed = found.correlation >= 0
        text = f"its order of last night's {found.queries:,} sampled lists has Kendall's tau {found.correlation:+.3f}"
        text += "" if passed else ": it turns the published order around"
        checks.append(Check("order of last night's lists", found.correlation, 0.0, passed, text))
    if found.overlap is None:
        text = "overlap at 10 not checked: no list of last night has more than 10 passages"
        return [*checks, Check("last night's lists", None, limits.min_overlap_at_10, True, text)]
    passed = found.overlap >= limits.min_overlap_at_10
    text = f"{100 * found.overlap:.0f} % of the best ten of last night's lists stay"
    text += "" if passed else f"; at least {100 * limits.min_overlap_at_10:.0f} % must"
    return [*checks, Check("last night's lists", found.overlap, limits.min_overlap_at_10, passed, text)]
