"""One PWFN clustering round, exactly, in O(N log C) time and O(N + C) memory, on any device.

The paper (NeurIPS 2023, section 3) measures how far each of N weights is from each of C candidate values in units of
its own sigma, and lets the candidate that reaches most weights take them, again and again. Done as written that is a
C x N matrix, built anew for each centre. Four observations make it a few passes over the weights:

1. Intervals (`intervals`). In units of 2^-b the candidates are integers and a weight sits at x = mu 2^b. The
   candidates it reaches, |c - x| / s <= k 2^b, form an interval: the quotient grows with |c - x| even after rounding.
   So two numbers say all about a weight: `low`, its first candidate, and `high`, one past its last. Both ends are
   exact to the last bit: x -+ s k 2^b decides every integer but the one nearest to it, and that one is asked itself.
2. Classes (`greedy`). Weights with the same interval are alike for ever: the greedy choice needs only how many there
   are. One histogram turns 25 million weights into a few hundred classes, and choosing centres costs milliseconds.
3. Stages (`round`). Within one (order, radius) the choice goes on until no candidate reaches a free weight, so every
   weight with a non-empty interval is assigned in its stage. What is left is known in the same pass and is all that
   the next stage, with more candidates or a larger radius, looks at.
4. One cut (`cut`). Only the last centre of a round can reach more weights than are needed: distances are computed for
   its weights alone, and a selection, not a sort, keeps the nearest; of equally near ones the lowest index.

    from pwfn.methods.pwfn.clustering import cluster_round
    clustered = cluster_round(mu, sigma, fraction=0.4, radius=1.0, radius_growth=2.0, b=7)
    clustered.apply_(mu, sigma, "std_mu")

Beyond the paper, `growth` chooses what happens when nothing is left within reach (`round`; the tail that makes no new
values is in `nearest`), `ClusterRound.at_means` moves each value to the mean of its weights, and
`nearest_round` takes values that were found otherwise.

Every decision is made in float64 or in integers, and no sum depends on its order, so that a CPU and a GPU, and two
runs on either, give the same result to the last bit.
"""

from pwfn.methods.pwfn.clustering.round import ClusterRound, cluster_round, nearest_round

__all__ = ["ClusterRound", "cluster_round", "nearest_round"]
