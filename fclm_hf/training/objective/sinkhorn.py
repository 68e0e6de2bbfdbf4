r"""Entropic optimal transport between uniform marginals (Eq. 6 and 7), in a fixed number of operations.

**Problem.** Given the cost C of moving mass from each of K tokens of A to each of K tokens of B, find the plan T >= 0
that minimizes `<T, C> - epsilon H(T)`, H being the entropy, where each token of A sends and each token of B receives
the mass 1 / K. Everything below is scaled by K, so that rows and columns sum to 1; the mask selects the K tokens.

**Dual.** The optimal plan has the form `T_ij = exp((f_i + g_j - C_ij) / epsilon)` with one potential per row and one
per column (Cuturi, 2013). Whatever g is, the f that makes the rows sum to 1 is known in closed form, and with it the
plan is a softmax over each row,

    T(g) = softmax_j((g_j - C_ij) / epsilon),

so that only the column sums `c(g) = T(g)^T 1` remain to be matched: c(g) = 1. Sinkhorn-Knopp scaling is the fixed-point
iteration `g += epsilon log(1 / c)`. It needs thousands of iterations if tokens lie in clusters, because mass moves
between clusters at a rate of about exp(-distance / epsilon).

**Newton.** The derivative of c follows from that of the softmax, `dT_ij / dg_j' = T_ij (delta_jj' - T_ij') / epsilon`.
Summed over the rows i it gives

    dc / dg = (diag(c) - T^T T) / epsilon.

A Newton step `g += epsilon s` therefore solves `(diag(c) - T^T T) s = 1 - c` (Brauer et al., 2017). The matrix is
symmetric and positive semidefinite. Vectors that are constant on the masked tokens are in its kernel, as adding a
constant to g changes nothing; the right-hand side is orthogonal to them, since both 1 and c sum to K. Conjugate
gradients are thus applicable and never form the matrix: a product takes two matrix-vector products, like one Sinkhorn
iteration. `diag(c)` is the preconditioner.

**Damping.** Far from the solution the full step overshoots. Only differences of g matter, so the step is shortened
until its range `max s - min s` is at most `_MAX_STEP_RANGE`: no ratio of two entries of a row then changes by more than
a factor of e^3.

**Annealing.** Newton's method converges from afar if epsilon is large, where T is nearly uniform. Hence epsilon starts
at `_FIRST_EPSILON`, and each smaller value starts from the potentials of the one before (Schmitzer, 2019). One inexact
Newton step per value is enough on the way down, `_NEWTON_STEPS` accurate ones follow at the final epsilon.

The number of operations depends on epsilon and `iterations` alone, never on data: nothing waits for the device, and all
shapes are static. The accuracy is measured in tests/training/objective/test_optimal_transport_accuracy.py.
"""

import math

import torch
from transformers.utils.generic import maybe_autocast


_FIRST_EPSILON = 1.0  # the cost is at most 2, so that the first plan is nearly uniform
_ANNEALING_RATIO = 2 ** (1 / 3)  # ratio of an epsilon to the next smaller one
_ANNEALING_ITERATIONS = 5  # conjugate gradient iterations in the single Newton step at each larger epsilon
_NEWTON_STEPS = 6  # Newton steps at the final epsilon
_MAX_STEP_RANGE = 3.0
_MASKED_SCORE = -1e30  # finite, so that the softmax of a row with no other entries is not NaN
_MIN_COLUMN_SUM = 1e-30  # avoids a division by 0 for columns that no mass reaches
_ROUNDING_ERROR = 1e-13  # squared relative error of a sum in fp32: a smaller squared residual is noise
_MIN_CURVATURE = 1e-7  # relative to the preconditioner; directions below it are numerically in the kernel


def _plan_newton_steps(epsilon: float, iterations: int) -> list[tuple[float, int]]:
    """Return the epsilon and the number of conjugate gradient iterations of each Newton step."""
    larger = max(0, math.ceil(math.log(_FIRST_EPSILON / epsilon, _ANNEALING_RATIO)))
    annealing = [(epsilon * _ANNEALING_RATIO**k, _ANNEALING_ITERATIONS) for k in range(larger, 0, -1)]
    return annealing + [(epsilon, math.ceil(iterations / _NEWTON_STEPS))] * _NEWTON_STEPS


def _dot(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the inner products of shape `(batch, 1)`."""
    return (first * second).sum(1, keepdim=True)


def _solve(plan: torch.Tensor, columns: torch.Tensor, missing: torch.Tensor, iterations: int) -> torch.Tensor:
    """Solve `(diag(columns) - plan^T plan) step = missing` by preconditioned conjugate gradients.

    The solution of an image no longer changes once its residual is within the rounding error, or the search direction
    is numerically in the kernel of the matrix; the remaining iterations take steps of length 0.

    Args:
        plan: Plan of shape `(batch, n, n)`.
        columns: Its column sums, of shape `(batch, n)`.
        missing: Right-hand side, of shape `(batch, n)`.
        iterations: Number of iterations.

    Returns:
        The step, of shape `(batch, n)`.
    """
    step, residual = torch.zeros_like(missing), missing
    direction = residual / columns
    size = _dot(residual, direction)
    noise, is_active = _ROUNDING_ERROR * columns.sum(1, keepdim=True), torch.ones_like(size, dtype=torch.bool)
    for _ in range(iterations):
        # row vectors on the left: a product with a matrix of one column is several times slower on a CPU
        product = columns * direction - (direction[:, None] @ plan.mT @ plan)[:, 0]
        curvature = _dot(direction, product)
        has_curvature = curvature > _MIN_CURVATURE * _dot(columns * direction, direction)
        is_active = is_active & (size > noise) & has_curvature
        length = torch.where(is_active, size / curvature, 0.0)
        step, residual = step + length * direction, residual - length * product
        scaled = residual / columns
        size, previous = _dot(residual, scaled), size
        direction = scaled + torch.where(is_active, size / previous, 0.0) * direction
    return step


def iterate_plan(cost: torch.Tensor, mask: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """Compute the plan of [`sinkhorn_plan`] without the custom operator."""
    with maybe_autocast(device_type=cost.device.type, enabled=False):
        rows = mask.float()
        scores = (-cost.float()).masked_fill(~mask[:, None, :], _MASKED_SCORE)
        potentials = torch.zeros_like(rows)  # g

        def make_plan(epsilon: float) -> torch.Tensor:
            return ((scores + potentials[:, None, :]) / epsilon).softmax(2) * rows[:, :, None]

        for stage_epsilon, count in _plan_newton_steps(epsilon, iterations):
            plan = make_plan(stage_epsilon)
            columns = plan.sum(1)  # not a product with ones, which would round more
            step = rows * _solve(plan, columns.clamp(min=_MIN_COLUMN_SUM), rows - columns, count)
            step_range = step.amax(1, keepdim=True) - step.amin(1, keepdim=True)
            damping = _MAX_STEP_RANGE / step_range.clamp(min=_MAX_STEP_RANGE)
            potentials = potentials + stage_epsilon * step * damping
        return make_plan(epsilon) / rows.sum(1).clamp(min=1)[:, None, None]


# a custom operator, because torch.compile would take minutes to trace its thousands of operations
_plan_operation = torch.library.custom_op("fclm_hf::sinkhorn_plan", iterate_plan, mutates_args=())


@_plan_operation.register_fake
def _describe_plan(cost: torch.Tensor, mask: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """Return a tensor of the shape and type of the plan, for tracing."""
    return torch.empty_like(cost, dtype=torch.float32)


@torch.no_grad()
def sinkhorn_plan(cost: torch.Tensor, mask: torch.Tensor, epsilon: float = 0.05, iterations: int = 100) -> torch.Tensor:
    """Compute the entropic transport plan between uniform marginals (Eq. 6 and 7).

    It is the plan that Sinkhorn-Knopp scaling converges to, found by damped Newton steps as this module explains. An
    iteration costs as much as one of Sinkhorn: two matrix-vector products per image.

    Args:
        cost: Cost in [0, 2], of shape `(batch, n, n)`.
        mask: Boolean mask of shape `(batch, n)` of the K tokens that carry mass, the same for rows and columns. Each of
            them has the mass 1 / K.
        epsilon: Weight of the entropy.
        iterations: Conjugate gradient iterations at the final epsilon, distributed over 6 Newton steps.

    Returns:
        The plan in fp32, of shape `(batch, n, n)`: 0 outside the mask; rows sum to 1 / K exactly, columns
        approximately.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
        >>> sinkhorn_plan(cost, torch.ones(1, 2, dtype=torch.bool))
        tensor([[[5.0000e-01, 1.0306e-09],
                 [1.0306e-09, 5.0000e-01]]])
    """
    return _plan_operation(cost, mask, epsilon, iterations)


__all__ = ["iterate_plan", "sinkhorn_plan"]
