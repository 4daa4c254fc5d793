"""One PWFN clustering round for N weights and C candidate values: exact, in O(N log C) time and O(N + C) memory.

The paper (PWFN, NeurIPS 2023, section 3) measures how far each weight is from each candidate, in units of the weight's
own sigma. It chooses the candidate that reaches most weights as a centre, fixes these weights to it, and repeats that
for the remaining weights. Written down directly, this needs a C x N matrix for every centre. Four observations reduce
it to a few passes over the weights:

1. Intervals (`intervals`). In units of 2^-b the candidates c are integers, and a weight is at x = mu 2^b. It reaches
   the candidates with |c - x| / s <= k 2^b, where s is its sigma and k the radius. These form an interval, because the
   quotient grows with |c - x|, even after rounding. So two numbers describe a weight: `low`, the first candidate that
   it reaches, and `high`, one past the last. Both are exact: x - s k 2^b and x + s k 2^b, computed in float64, can be
   wrong only about the integer nearest to them, and that integer is tested with the quotient itself.
2. Classes (`greedy`). Weights with the same interval always have the same fate, so the greedy choice needs only their
   number. One histogram turns 25 million weights into a few hundred classes; choosing centres then takes milliseconds.
3. Stages (`round`). With one order and one radius, centres are chosen until no candidate reaches a free weight. So
   every weight with a non-empty interval is fixed in its stage. The next stage, which has more candidates or a larger
   radius, looks only at the weights that are left.
4. One cut (`cut`). Only the last centre of a round can reach more weights than are needed. Distances are computed for
   the weights of that centre alone, and a selection instead of a sort keeps the nearest; among equally near ones it
   keeps those with the lowest index.

The weights that one choice of a centre fixes are a cluster (`clusters`).

    from pwfn.methods.pwfn.clustering import cluster_round
    clustered = cluster_round(mu, sigma, fraction=0.4, radius=1.0, radius_growth=2.0, b=7)
    clustered.apply_(mu, sigma, "std_mu")

Beyond the paper: `growth` says what happens when no candidate reaches a free weight any more (`round` and `nearest`),
`ClusterRound.at_means` moves each value to the mean of its weights, and `nearest_round` uses values that were found in
another way.

Every decision is made in float64 or in integers, and no sum depends on the order of its terms. So a CPU and a GPU, and
two runs on either, give the same result to the last bit.
"""

from pwfn.methods.pwfn.clustering.round import ClusterRound, cluster_round, nearest_round

__all__ = ["ClusterRound", "cluster_round", "nearest_round"]
