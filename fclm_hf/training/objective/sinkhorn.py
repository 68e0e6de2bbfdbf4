"""The plan that Sinkhorn-Knopp scaling converges to (Eq. 6 and 7), found with a fixed number of steps."""

import math

import torch
from transformers.utils.generic import maybe_autocast


_FIRST_EPSILON = 1.0  # of the annealing; the cost is at most 2
_ANNEALING = 2 ** (1 / 3)  # ratio of one epsilon to the next
_ANNEALING_ITERATIONS = 5  # on each larger epsilon on the way down, in one Newton step
_NEWTON_STEPS = 6  # on the last epsilon
_LONGEST_STEP = 3.0  # a step changes no ratio of two entries of a row by more than e^3
_BLOCKED = -1e30  # finite: a row of only such entries has a softmax without NaN
_ROUNDING = 1e-13  # squared relative error of sums in fp32


def _anneal(epsilon: float, iterations: int) -> list[tuple[float, int]]:
    """Newton steps as (epsilon, iterations): down from `_FIRST_EPSILON`, then those on `epsilon` itself."""
    above = max(0, math.ceil(math.log(_FIRST_EPSILON / epsilon, _ANNEALING)))
    stages = [(epsilon * _ANNEALING**k, _ANNEALING_ITERATIONS) for k in range(above, 0, -1)]
    return stages + [(epsilon, math.ceil(iterations / _NEWTON_STEPS))] * _NEWTON_STEPS


def _dot(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first * second).sum(1, keepdim=True)


def _solve(plan: torch.Tensor, columns: torch.Tensor, missing: torch.Tensor, iterations: int) -> torch.Tensor:
    """Solves `(diag(columns) - plan^T plan) step = missing` by conjugate gradients, preconditioned by `columns`.

    Each image stops where rounding hides its residual or the curvature, as on directions that change nothing.
    """
    step, residual = torch.zeros_like(missing), missing
    direction = residual / columns
    size = _dot(residual, direction)
    floor, going = _ROUNDING * columns.sum(1, keepdim=True), torch.ones_like(size, dtype=torch.bool)
    for _ in range(iterations):
        # row vectors on the left: a product with a matrix of one column is several times slower on a CPU
        product = columns * direction - (direction[:, None] @ plan.mT @ plan)[:, 0]
        curvature = _dot(direction, product)
        going = going & (size > floor) & (curvature > 1e-7 * _dot(columns * direction, direction))
        length = torch.where(going, size / curvature, 0.0)
        step, residual = step + length * direction, residual - length * product
        scaled = residual / columns
        size, old = _dot(residual, scaled), size
        direction = scaled + torch.where(going, size / old, 0.0) * direction
    return step


def iterate_plan(cost: torch.Tensor, mask: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """What [`sinkhorn_plan`] does, operation by operation."""
    with maybe_autocast(device_type=cost.device.type, enabled=False):
        rows = mask.float()
        gain = (-cost.float()).masked_fill(~mask[:, None, :], _BLOCKED)
        potentials = torch.zeros_like(rows)

        def make_plan(epsilon: float) -> torch.Tensor:
            return ((gain + potentials[:, None, :]) / epsilon).softmax(2) * rows[:, :, None]

        for stage_epsilon, count in _anneal(epsilon, iterations):
            plan = make_plan(stage_epsilon)
            columns = plan.sum(1)  # a product with ones would round more
            # a column that nothing reaches, or one outside the mask, must not divide by 0
            step = rows * _solve(plan, columns.clamp(min=1e-30), rows - columns, count)
            span = step.amax(1, keepdim=True) - step.amin(1, keepdim=True)
            potentials = potentials + stage_epsilon * step * (_LONGEST_STEP / span.clamp(min=_LONGEST_STEP))
        return make_plan(epsilon) / rows.sum(1).clamp(min=1)[:, None, None]


# one operation to torch.compile, which would take minutes over the thousands that it is made of
_plan_operation = torch.library.custom_op("fclm_hf::sinkhorn_plan", iterate_plan, mutates_args=())


@_plan_operation.register_fake
def _describe_plan(cost: torch.Tensor, mask: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    return torch.empty_like(cost, dtype=torch.float32)


@torch.no_grad()
def sinkhorn_plan(cost: torch.Tensor, mask: torch.Tensor, epsilon: float = 0.05, iterations: int = 100) -> torch.Tensor:
    """Entropic transport plan between uniform marginals (Eq. 6 and 7), in fp32.

    The plan of Sinkhorn-Knopp scaling, without its thousands of iterations where tokens lie in clusters. With the
    potentials g of the columns, the rows of `softmax((g - cost) / epsilon)` have the right sums; damped Newton steps on
    g, solved by conjugate gradients, bring those of the columns (Brauer et al., 2017), while epsilon comes down to its
    value (Schmitzer, 2019). An iteration costs as much as one of Sinkhorn: two matrix-vector products.

    Args:
        cost: (batch, n, n) in [0, 2].
        mask: bool (batch, n), the K tokens that carry mass, the same on both sides; each has 1 / K.
        epsilon: weight of the entropy.
        iterations: of conjugate gradients on `epsilon` itself, over 6 Newton steps. The number never depends on data.

    Returns:
        fp32 (batch, n, n), 0 outside `mask`; its rows sum to 1 / K, its columns nearly.
    """
    return _plan_operation(cost, mask, epsilon, iterations)


__all__ = ["sinkhorn_plan"]
