"""Every constant of the strategy `frontier`, in one place: what it means, its unit, its source, and what it moves.

"Points" are hundredths of the score on the scale of shares (0 to 1, see `score_scale`). "The tables" are xed and snips in
`benchmarks/search/tables`: the strategy was made on those two, and phrase_tone was kept for a check. "Set on the tables"
means chosen or changed while these tables were being made (22 November 2026: xed with one seed of each adapter, snips in
part); no fit is kept. "Chosen, not measured" means that nothing records a fit or a comparison. "Small sweeps" are our own
before the tables; their results are not kept.

A changed constant changes the choices. `python -m benchmarks.search.choices --write` records the new ones, and
`python -m benchmarks.search.compare` shows what the change is worth. `LEAST_ITEMS`, the least number of validation items
of a low-fidelity evaluation, stands in `strategies/protocol.py`, because the scheduler needs it too.
"""

from __future__ import annotations

# --- the adapters and fidelities that are searched --------------------------------------------------------------------

RUNGS = (1 / 9, 1 / 3, 1.0)
"""The fidelities of a training, as shares of its steps.
Source: chosen; a factor of three between rungs is usual (Li et al., Hyperband, JMLR 18 (2018)). The oracle tables have
these rungs only; `benchmarks/measured/signals.md` gives the rank correlation and the seconds of each.
Moves: what a low-fidelity evaluation costs, and how well it ranks adapters."""

POOL = 256
"""The most adapters that the surrogate models; a larger space is sampled at random. Once half of them were evaluated,
further evaluated ones come on top.
Source: chosen, not measured; `benchmarks.search.own_cost` prints the time of a decision.
Moves: the time of a decision, which grows with it, and how finely a continuous space is covered."""

REFINED_EACH = 1.1
"""The pool is refined again once the number of fully scored adapters has grown by this factor, and by one at least.
Source: chosen for the time of a resume. Moves: that time."""

REFINED, REFINED_AROUND, NEIGHBOURS_CHANGED, NEIGHBOUR_STEP = 64, 6, 2.0, 0.12
"""In a large space, after each fully scored adapter: how many adapters of the pool are replaced, and around how many of the most
promising half of the new ones lie; how many parameters of a neighbour differ on average; and the standard deviation of a
number's step, as a share of its range. The other half are new random draws.
Source: chosen. Moves: how near the search comes to the best settings of a wide space, and how much it still explores."""

DRAWS_PER_ADAPTER = 4
"""Random draws from a large space, for each place in the pool: draws repeat themselves, and some cannot be trained.
Source: chosen, not measured. Moves: whether the pool of a barely large space is filled."""

KNOWN_TO_PRIOR = ("target_modules", "r", "learning_rate", "alpha_over_r", "alpha")
"""The parameters of a large space for which the prior mean knows good values; the favourite has the tool's defaults in all
others.
Source: what `priors` reads. Moves: the first adapter of a large space."""

FAVOURITE_LEVELS, LINE_LEVELS = 81, 9
"""The number of values of a range that are compared for the favourite, and of learning rates at which the favourite is in
the pool of a large space.
Source: chosen. Moves: how near the favourite comes to the usual rate, and how finely its rate is looked for."""

AS_GOOD = 0.001
"""A difference of prior means (a share) that does not count when the first adapter is chosen: among equals the first of the
pool is taken, which is the favourite in a large space; and the favourite keeps a default that is as good.
Source: chosen, below all effects of the prior. Moves: the first adapter of a large space."""

FULL_HISTORIES = 32
"""The adapters whose observations at lower rungs stay in the Gaussian process beside one at a higher rung.
Source: chosen for the time of a decision in a long sweep (`benchmarks.search.own_cost`); some tens show how rungs correlate.
Moves: the size of the linear system that each decision solves."""

LOW_FIDELITY_ADAPTERS = 32
"""The adapters for which low-fidelity evaluations are considered in one decision: those whose direct training is worth most.
Source: chosen, not measured. Moves: the time of a decision; a small value hides adapters."""

LOW_FIDELITY_SHARES = (1 / 8, 1 / 4)
"""The shares of the validation items that a low-fidelity evaluation may score.
Source: `benchmarks/measured/signals.md`: from 100 of 1,000 items on, more items hardly improve the ranking. A half was tried
and removed on 22 November 2026. Moves: what such an evaluation costs, and how noisy its score is."""

# --- the front ----------------------------------------------------------------------------------------------------------

OPTIMISM = 0.9
"""The factor on latencies and sizes that are only predicted, so that unmeasured recipes look better than they are.
Source: chosen; 0.7 made the coarsest recipe look better than a more accurate one. Moves: how early each recipe is built for the
first time."""

LATENCY_BOUND, SIZE_BOUND = 1.1, 1.01
"""The reference point of the hypervolume: times the slowest recipe's latency, and times the largest recipe's size.
Source: chosen. The benchmark uses 1.1 times the latency and exactly the largest size, so `frontier` nearly knows its bounds
(`benchmarks/search/README.md`). With 1.01 the largest recipe adds little, but not nothing.
Moves: how much the slowest and the largest recipe count."""

UNKNOWN_BASE = 0.25
"""How far below the worst known score the floor of the hypervolume lies while the untouched model has no score; 25 points.
Source: chosen, not measured. Moves: only sweeps whose untouched model could not be scored."""

BUILD_PRIOR_WEIGHT = 0.2
"""A pseudo-count of successful builds: the prior that a recipe can be built counts like so many of them. The probability is
(built + weight) / (built + failed + weight).
Source: chosen, not measured. Moves: after how many failures a recipe is proposed last."""

DIVERGED_SD = 0.05
"""An adapter whose training diverged counts as one that has the untouched model's score with this standard deviation (a
share).
Source: chosen. Moves: how far around such an adapter others are avoided."""

EXACT_BITS = 16
"""A build whose weights have at least so many bits predicts what the adapter predicts.
Source: at fp32 `benchmarks/measured/parity.md` finds no difference in 400 items; 16 was chosen, not measured.
Moves: whether one recipe in which the score is no number marks the adapter as diverged, or only two such recipes do."""

SAME_MODEL_SD = 0.003
"""Standard deviation (a share) of the difference between the scores of one adapter in one recipe on two targets: they differ
by rounding alone.
Source: chosen, not measured. Moves: in sweeps with several targets only, the assumed certainty of a pair's score that
another target has measured."""

LEAST_DEVIATION = 1e-9
"""The standard deviation of a score that is known (a share).
Source: numerical, above zero because the expected improvement divides by it. Moves: nothing visible."""

GITTINS_NODES, GITTINS_STEPS = 5, 6
"""Quadrature nodes for the outcome of a low-fidelity evaluation, and Dinkelbach steps for its index.
Source: chosen; the steps converge faster than Newton's method. Moves: the accuracy of the index, and the time of a decision."""

# --- the prior of LoRA settings -----------------------------------------------------------------------------------------

BEST_RATE, RATE_LOSS, MOST_RATE_LOSS = 1.3e-3, 0.03, 0.12
"""The best effective learning rate of a long training (rate times the root of alpha over `REFERENCE_ALPHA_OVER_R` times
rank), the loss at one width from it, and the largest loss (shares).
Source: Biderman et al. (2024) and Schulman et al. (2025, see `priors`) for a rate about ten times that of full training; the
losses are chosen (halved on 22 November 2026). In the tables a tenth of the best rate costs 17 to 47 points
on snips and 0 to 30 on xed. `frontier-misled` and `frontier-without-prior` in benchmarks/README.md show what they are worth.
Moves: which learning rates are trained first."""

USUAL_WIDTH, WIDTH_EXPONENT = 576, 0.35
"""The width of hidden states at which `BEST_RATE` holds, and the power of a larger width by which the best rate is lower.
Source: the width is that of SmolLM2-135M, the model of the tables; the exponent is fitted to 355 runs of 23 models of widths
2,048 to 8,192 by others (`benchmarks.search.real_runs`, which leaves one model out at a time).
Moves: which learning rates are trained first with larger models."""

REFERENCE_ALPHA_OVER_R = 2.0
"""Alpha over rank at which the effective learning rate is the learning rate itself.
Source: small sweeps. Moves: the same as `BEST_RATE`."""

RATE_WIDTH_BELOW, RATE_WIDTH_ABOVE = 0.7, 0.5
"""Decades from the best rate that cost `RATE_LOSS`, below and above it: a low rate learns less, a high one destroys.
Source: chosen; 1.0 below was narrowed to 0.7 once the table of snips was whole (benchmarks/README.md), so that a tenth of
the best rate costs 6 points. `frontier` then had 95 % on snips after 2.8 instead of 3.3 minutes; xed and phrase_tone did
not move. Moves: how soon low learning rates are evaluated."""

RATE_SHIFTS, SHIFT_CHANCES = (
    (-1.5, -1.25, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5),
    (0.005, 0.01, 0.02, 0.04, 0.1, 0.18, 0.24, 0.18, 0.1, 0.04, 0.02, 0.01, 0.005),
)
"""How many decades the best rate may be above `BEST_RATE`, and the prior probability of each: hypotheses, whose probabilities
the scores change.
Source: chosen; of 23 models by others (`benchmarks.search.real_runs`) the best rate is within half a decade of the prior's, which the
chances follow; the tails are for the made-up worlds where it is a decade off. With wider chances the second adapter was a decade away.
Moves: how soon other rates are tried, and after how many scores a wrong prior is overruled."""

STEEPNESSES, STEEP_CHANCES, STEEP_WIDTHS = (1.0, 3.0), (0.7, 0.3), 2.0
"""The factors by which a wrong rate may cost more than usual; the prior probability of each, with any shift; and the factor
by which the width in decades is smaller where the first factor is above 1.
Source: a training at a wrong rate may learn nothing, which costs some 35 points, three times `MOST_RATE_LOSS`; the chances are chosen. On
the made-up worlds they replaced wide variances of slope and curvature, which sent the search far from a good favourite.
Moves: where the search goes on after a favourite that has learned nothing."""

FLAT_CHANCE = 1 - sum(SHIFT_CHANCES)
"""The prior probability that settings say nothing about the score.
Source: what the other hypotheses leave. Moves: the same."""

SHORT_STEPS = 50
"""The steps of a training whose best rate is twice `BEST_RATE`: the factor on it is 1 + SHORT_STEPS / steps.
Source: Schulman et al. (2025) for higher rates in short trainings; the number is from small sweeps.
Moves: which rates are trained first where `steps` is below some hundreds."""

RANK_LOSS, RANK_EXPONENT = 0.15, 1 / 3
"""What an adapter of rank r loses against one of a much larger rank: RANK_LOSS * r ** -RANK_EXPONENT (a share).
So 16 gains 0.016 on 8, and 128 gains 0.008 on 64.
Source: until 29 November 2026 each doubling gained 0.006. Of 23 models by others (`benchmarks.search.real_runs`) the mean regret after
two runs is 2.01 thousandths of a nat with that, and 1.17 with this; the second run was often one of the lowest rank. 0.025 for each
doubling has 0.55 there, and cost 1.5 points of area on made-up worlds whose best adapters are small. This costs none on 81 worlds.
Moves: the order of adapters with nearly the same rate, and whether rank or rate is changed next."""

ALL_LINEAR_GAIN = 0.01
"""The gain of adapters on all linear layers instead of attention alone (a share).
Source: Schulman et al. (2025) and small sweeps. Moves: the order of adapters with nearly the same rate."""

# --- the prior of recipes -----------------------------------------------------------------------------------------------

RECIPE_LOSS = {32: (0.0, 0.005, 0.004), 16: (0.0, 0.005, 0.004), 8: (0.003, 0.005, 0.006), 4: (0.03, 0.03, 0.03)}
"""By bits of a weight: the quantisation loss, its standard deviation, and the standard deviation between adapters (shares).
Source: chosen while the tables grew; eight bits were made surer than four on 26 November 2026. On an easy task four bits may
cost nothing. Moves: how often a second adapter is built in a recipe to learn its loss."""

REFERENCE_BLOCK, COARSE_LOSS = 32, 0.01
"""Weights in a quantisation block without further loss, and the loss of each doubling beyond that at four bits (a share).
Source: set on the tables. Moves: the order of the four-bit recipes."""

QUANTISED_BITS, SCALE_BITS, MIXED_SHARE = 8, 16, 0.15
"""The most bits of quantised weights, the bits of a block's scale, and the share of the weights that each group of layers
kept at int8 holds.
Source: the first two are the format of the builds; the share was chosen, not measured.
Moves: predicted sizes and latencies until a recipe is built."""

UNQUANTISED_BITS = 32
"""Bits of a weight where no recipe states them.
Source: fp32 is what a base model without a recipe is built in. Moves: the scale of the first predicted footprint."""

FOOTPRINT_EXPONENT = 0.7
"""Latency and size grow with this power of the bits of a weight.
Source: chosen, not measured.
Moves: predicted sizes and latencies until a recipe is built."""

# --- the Gaussian process -----------------------------------------------------------------------------------------------

GROWTH_EXPONENT = 0.5
"""Differences between adapters grow with this power of the share of the steps.
Source: set on the tables. Moves: how much a difference at a low rung says of the last one."""

SHARED_SD, RUNG_SD, ADAPTER_SD = 0.065, 0.05, 0.012
"""Standard deviations (shares) of the effect of settings at all rungs, of their effect at one rung, and of one adapter alone.
Source: set on the tables. Moves: how far a score carries over to similar adapters, and to other rungs."""

ADAPTER_SHARED = 0.5
"""The share of an adapter's own variance that all its rungs have in common.
Source: chosen, not measured. Moves: how much a low rung says of the same adapter at the last one."""

LEVEL_SD, RISE, RISE_SD = 0.5, 0.095, 0.08
"""Standard deviation of the level of all scores; the mean rise of the level from a rung to the next, and its standard
deviation (shares).
Source: set on the tables; the first is wide enough to say nothing, and holds where the untouched model has no score.
Moves: how a low-rung score compares with a last-rung one."""

LEVEL_GAIN, GAIN_SD = 0.25, 0.2
"""The mean and the standard deviation (shares) of how far the score of usual settings lies above the untouched model's.
Source: chosen; trainings gain 20 to 45 points on the tables. Moves: whether one score, beside the untouched model's, tells a good
favourite from one whose learning rate is wrong."""

TILT_SD, RUNG_TILT_SD = 0.02, 0.02
"""Standard deviations (shares) of the slope of the score over a decade of learning rate at all rungs, and of the slope at one rung.
Source: the second was set on the tables. The first was 0.08 there, beside a curvature of 0.09: with these every rate far from the
favourite seemed promising, although a score that rises and falls again is what the hypotheses say. Moves: how far two learning
rates predict a third beyond them."""

PRIOR_SD = 0.5
"""Standard deviation of the factor on the prior mean, whose own mean is 1; 0 would trust the prior fully.
Source: chosen, not scanned. `frontier-misled` in benchmarks/README.md shows what a prior costs that is wrong by a decade.
Moves: after how many scores a wrong prior is overruled."""

RATE_DELAY = 0.05
"""How much lower a score is below the last rung for each decade of learning rate above the best: high rates gain most while
the rate decays.
Source: set on the tables. Moves: whether high rates are given up at a low rung."""

LENGTH_SCALE, CHOICE_CORRELATION = 0.35, 0.7
"""The length scale of the kernel, as a share of a parameter's range, and the correlation of two values of an unordered choice.
Source: set on the tables. Moves: how similar two adapters are taken to be."""

USUAL_DIMENSIONS = 4
"""With more searched parameters than this, length scales begin larger: by the root of their number over this one.
Source: the tables search four. Moves: how related adapters are in a wide space."""

FACTOR_SD, LENGTH_FACTOR_SD = 0.5, 0.7
"""Standard deviations of the natural logarithms of the learned factors: of effects and luck, and of length scales.
Source: chosen. Moves: after how many scores the scales follow the sweep's own scores."""

FIT_LEAST, FIT_MOST, FIT_STEPS = 4, 64, 20
"""The least number of scores from which scales are learned, the most that are used, and the steps of a descent.
Source: chosen for the time of a decision. Moves: that time, and how soon the scales follow."""

RPROP_FIRST, RPROP_MORE, RPROP_LESS, RPROP_MOST = 0.2, 1.2, 0.5, 0.6
"""The first step of a descent in a factor's natural logarithm, by how much a step grows and shrinks, and the largest step.
Source: the factors are those of Igel and Huesken (2003); the steps are chosen. Moves: how near the scales come to the best."""

LOG_RATIO = 3.0
"""A parameter whose largest value is more than so many times its smallest is placed on a logarithmic axis.
Source: chosen, not measured. Moves: distances between the values of narrow ranges."""

SHARED_CHANCE = 0.5
"""The share of an item's variance that all adapters have in common: some items are hard for all.
Source: set on the tables.
Moves: how many items tell two adapters apart."""

PROBABILITY_VARIANCE = 0.35
"""The variance of the probability of the right label, as a share of the variance of right or wrong.
Source: set on the tables. `benchmarks/measured/signals.md` shows that these probabilities rank adapters better.
Moves: how many items a low-fidelity evaluation needs."""

VARIANCE_SHARES = (0.02, 0.98)
"""Shares of right answers are clipped to these for an item's variance, which is 0 at both ends.
Source: numerical. Moves: only scores near 0 and 1."""

MIDDLE_SCORE, LEAST_VARIANCE = 0.5, 1e-8
"""The mean of the level of all scores, and the least variance of a posterior (shares, squared).
Source: the middle of a share; numerical. Moves: nothing once one score is known."""

# --- scores of an unknown scale -----------------------------------------------------------------------------------------

BASE_SHARE, GAINED_SHARE = 0.4, 0.25
"""Where the untouched model lies on the scale of shares, and how far above it the best score so far.
Source: chosen as usual for shares. Moves: sweeps over perplexity, a user's own metric, or a task of lm-eval."""

LEAST_GAIN = 0.25
"""The least gain, as a share of the range of all scores so far, that `GAINED_SHARE` stands for.
Source: chosen, not measured: a failure far below says little about the gains above. Moves: as above."""

SHARE_RANGE = (0.05, 0.98)
"""The least and the largest share that a score of unknown scale becomes. Source: chosen, not measured. Moves: as above."""

# --- costs before any is measured ---------------------------------------------------------------------------------------

TRAIN_S, BUILD_S, MERGE_S, TIME_S, ITEM_S = 100.0, 12.0, 2.0, 15.0, 0.04
"""Seconds of a full training of usual length, a build, a merge, a timing, and of scoring an item.
Source: rounded from a model of 100 million parameters on two cores; no measurement is kept.
Moves: the first decisions of a replay only: a sweep is given what the shared cost model (`autotune.costs`) expects on its
machine instead, and a measured cost replaces each."""

# --- transfer from earlier sweeps ---------------------------------------------------------------------------------------

TRANSFER_TRUST = 0.5
"""How much of the difference that earlier sweeps found is added to the prior mean; 1: all of it.
Source: chosen, because tasks differ; not measured. Moves: which adapters are trained first beside earlier sweeps."""

TRANSFER_LEAST = 4
"""The least number of fully trained adapters that an earlier sweep must have to be used.
Source: chosen, not measured. Moves: which earlier sweeps count."""

TRANSFER_SWEEPS, TRANSFER_ADAPTERS = 4, 48
"""The most earlier sweeps that are used, the latest first, and the most adapters of each.
Source: chosen, not measured. Moves: how long a sweep takes to begin, and what it knows then."""

TRANSFER_BYTES = 50_000_000
"""The largest results table, in bytes, that is read as an earlier sweep.
Source: chosen, not measured. Moves: how long a sweep takes to begin, and which earlier sweeps count."""
