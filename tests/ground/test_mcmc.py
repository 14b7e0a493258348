"""Markov chains against closed forms: moments, reversibility, known bias, integration errors, effective sample sizes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from mixtura.contracts import InputError
from mixtura.ground import mcmc
from mixtura.ground.mcmc import Hmc, Langevin, Mala, adapt, effective_sample_size, r_hat, run
from mixtura.ground.rng import generator, normal

MEAN, SCALE = 100.0, 3.0
SAMPLERS = [Langevin(0.5), Mala(0.5), Hmc(0.5, leaps=3)]


def covariance(d, correlation=0.6):
    """Scale 3, correlation 0.6^|i−j|."""
    i = torch.arange(d)
    return SCALE**2 * correlation ** (i[:, None] - i).abs().double()


def gaussian(cov, mean=MEAN):
    precision = torch.linalg.inv(cov)
    return lambda x: 0.5 * ((x - mean) @ precision.to(x.dtype) * (x - mean)).sum(1)


def standard(x):
    return 0.5 * (x**2).reshape(len(x), -1).sum(1)


def quartic(x):
    return (x**4).reshape(len(x), -1).sum(1)


def zeros(n, *shape, dtype=torch.float64):
    return torch.zeros(n, *shape, dtype=dtype)


def draw(n, d, *, seed=0):
    return normal((n, d), generator(seed, "start"), zeros(1))


def ar1(steps, chains, rho, *, seed=0):
    """x_t = ρ x_{t−1} + √(1 − ρ²) ξ_t, stationary from the start."""
    noise = np.random.default_rng(seed).normal(size=(steps, chains))
    x = noise.copy()
    for t in range(1, steps):
        x[t] = rho * x[t - 1] + math.sqrt(1 - rho**2) * noise[t]
    return torch.as_tensor(x)


# ------------------------------------------------------------------------------------------------------- moments


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("sampler", [Mala(2.2), Hmc(1.0, leaps=3)])
def test_moments_of_a_correlated_gaussian_are_within_two_percent(sampler, d):
    cov = covariance(d)
    start = MEAN + 3 * SCALE * draw(1000, d)
    draws = run(sampler, start, gaussian(cov), 400, generator(1)).draws[100:]
    centred = draws - MEAN
    found = torch.einsum("tni,tnj->ij", centred, centred) / (300 * 1000)
    assert float(centred.mean((0, 1)).abs().max()) < 0.02 * SCALE
    assert float((found - cov).abs().max()) < 0.02 * SCALE**2
    # and as close as the effective sample sizes promise: mean² = cov / ESS
    for terms, truth in ((centred, torch.zeros(d)), (centred**2, cov.diagonal())):
        error = terms.std((0, 1)) / effective_sample_size(terms).sqrt()
        assert bool(((terms.mean((0, 1)) - truth).abs() < 4 * error).all())
        assert float(error.max()) < 0.008 * SCALE**2
    assert float(r_hat(draws[:, :50]).max()) < 1.1


@pytest.mark.parametrize("sampler", [Mala(0.5), Hmc(0.3, leaps=3)])
def test_a_quartic_has_its_second_moment(sampler):
    """∫x² exp(−x⁴) / ∫exp(−x⁴) = Γ(3/4) / Γ(1/4)."""
    terms = run(sampler, 0.1 * draw(1000, 1), quartic, 500, generator(2)).draws[100:] ** 2
    error = float(terms.std() / effective_sample_size(terms).sqrt())
    assert error < 0.002 and abs(float(terms.mean()) - math.gamma(0.75) / math.gamma(0.25)) < 4 * error


def test_langevin_is_biased_on_a_quartic():
    terms = run(Langevin(0.33), 0.1 * draw(1000, 1), quartic, 600, generator(2)).draws[100:] ** 2
    error = float(terms.std() / effective_sample_size(terms).sqrt())
    assert float(terms.mean()) - math.gamma(0.75) / math.gamma(0.25) > 4 * error


@pytest.mark.parametrize("sampler", [Mala(1.2), Hmc(1.2, leaps=2)])
def test_exact_draws_stay_exact_at_large_steps(sampler):
    """Invariance without a warm-up: one step from exact draws must leave their law, here with many rejections."""
    chains = run(sampler, draw(40_000, 1), standard, 1, generator(3))
    assert float(chains.info.accepted.double().mean()) < 0.95
    assert kstest(chains.draws[0, :, 0].numpy(), norm.cdf).pvalue > 0.01


@pytest.mark.parametrize("step_size", [1.5, 2.5, 4.0])
def test_langevin_has_the_known_covariance(step_size):
    """x − (ε²/2) Σ⁻¹ x + ε ξ is stationary at Σ (I − (ε²/4) Σ⁻¹)⁻¹: σ² / (1 − ε²/(4σ²)) where Σ = σ² I."""
    cov = covariance(2, 0.3)
    expected = cov @ torch.linalg.inv(torch.eye(2) - step_size**2 / 4 * torch.linalg.inv(cov))
    start = MEAN + draw(2000, 2) @ torch.linalg.cholesky(expected).T
    centred = run(Langevin(step_size), start, gaussian(cov), 200, generator(4)).draws - MEAN
    terms = torch.stack([centred[..., 0] ** 2, centred[..., 0] * centred[..., 1], centred[..., 1] ** 2], -1)
    error = terms.std((0, 1)) / effective_sample_size(terms).sqrt()
    assert bool(((terms.mean((0, 1)) - expected[[0, 0, 1], [0, 1, 1]]).abs() < 4 * error).all())
    assert float(error.max()) < 0.01 * float(expected.max())


def test_langevin_is_a_descent_with_noise_on_a_scaled_energy():
    eta, nu = 0.05, 0.3
    state = mcmc.init(draw(3, 2), lambda x: 2 * eta / nu**2 * quartic(x))
    moved, _ = Langevin(nu).step(generator(5), state, lambda x: 2 * eta / nu**2 * quartic(x))
    x = state.position
    assert torch.allclose(moved.position, x - eta * 4 * x**3 + nu * normal((3, 2), generator(5), x))


# ------------------------------------------------------------------------------- reversibility and acceptance


def test_leapfrog_comes_back_when_its_momentum_is_turned():
    state, momentum = mcmc.init(draw(20, 3), quartic), draw(20, 3, seed=6)
    end, there, _ = mcmc._leapfrog(state, momentum, quartic, 0.05, 10)
    back, turned, _ = mcmc._leapfrog(end, -there, quartic, 0.05, 10)
    assert float((end.position - state.position).abs().min(0).values.max()) > 0.01
    assert torch.allclose(back.position, state.position) and torch.allclose(turned, -momentum)


def test_leapfrog_keeps_volume():
    def flow(z):
        end, momentum, _ = mcmc._leapfrog(mcmc.init(z[None, :2], quartic), z[None, 2:], quartic, 0.2, 3)
        return torch.cat([end.position, momentum], 1)[0]

    z, h = draw(1, 4)[0], 1e-5
    jacobian = torch.stack([(flow(z + h * e) - flow(z - h * e)) / (2 * h) for e in torch.eye(4, dtype=torch.float64)], 1)
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-6)
    assert float((jacobian - torch.eye(4)).abs().max()) > 0.1


def test_mala_accepts_with_the_ratio_of_its_proposals():
    """min(1, p(y) q(x|y) / (p(x) q(y|x))) with q(y|x) = N(x − (ε²/2) ∇E(x), ε² I), which is what detailed balance needs."""
    step_size, state = 0.4, mcmc.init(draw(50, 3), quartic)
    langevin, _ = Langevin(step_size).step(generator(7), state, quartic)
    moved, info = Mala(step_size).step(generator(7), state, quartic)

    def log_q(to, start):
        return -(((to.position - start.position + step_size**2 / 2 * start.gradient) / step_size) ** 2).sum(1) / 2

    ratio = state.energy - langevin.energy + log_q(state, langevin) - log_q(langevin, state)
    assert torch.allclose(info.acceptance, ratio.exp().clamp(max=1))
    assert 0 < int(info.accepted.sum()) < 50
    expected = torch.where(info.accepted[:, None], langevin.position, state.position)
    assert torch.equal(moved.position, expected) and torch.equal(moved.energy, quartic(expected))
    assert torch.allclose(moved.gradient, 4 * expected**3)


def test_moves_are_kept_as_often_as_their_probability_says():
    info = run(Mala(1.5), draw(2000, 2), standard, 50, generator(8)).info
    share, expected = float(info.accepted.double().mean()), float(info.acceptance.mean())
    assert 0.3 < expected < 0.9 and abs(share - expected) < 4 * math.sqrt(0.25 / (2000 * 50))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_acceptance_goes_to_one_and_falls_with_the_step_size(sampler):
    def acceptance(step_size):
        state = mcmc.init(draw(2000, 3), standard)
        return float(replace(sampler, step_size=step_size).step(generator(9), state, standard)[1].acceptance.mean())

    found = [acceptance(step_size) for step_size in (1e-3, 0.3, 0.8, 1.3, 1.8)]
    assert found[0] > 1 - 1e-6 and found[-1] < 0.6
    assert all(a > b for a, b in zip(found, found[1:], strict=False))


def test_energy_error_of_a_trajectory_is_of_second_order():
    def error(leaps):
        state = mcmc.init(draw(500, 2), quartic)
        return float(Hmc(0.4 / leaps, leaps).step(generator(10), state, quartic)[1].energy_error.abs().mean())

    coarse, middle, fine = error(16), error(32), error(64)
    assert coarse / middle == pytest.approx(4, rel=0.05) and middle / fine == pytest.approx(4, rel=0.05)


def test_one_leap_is_mala():
    mala, hmc = (run(sampler, draw(5, 2), quartic, 20, generator(11)) for sampler in (Mala(0.4), Hmc(0.4, leaps=1)))
    assert torch.equal(mala.draws, hmc.draws)


@pytest.mark.parametrize(("sampler", "target"), [(Mala(0.01), 0.574), (Mala(30.0), 0.574), (Hmc(0.01, leaps=4), 0.8)])
def test_adapting_finds_the_step_size_of_a_target(sampler, target):
    energy = gaussian(covariance(5))
    adapted, state = adapt(sampler, MEAN + SCALE * draw(100, 5), energy, 200, generator(12), target=target)
    assert type(adapted) is type(sampler)
    info = run(adapted, state.position, energy, 100, generator(13)).info
    assert float(info.acceptance.mean()) == pytest.approx(target, abs=0.05)


def test_adapting_follows_dual_averaging():
    """log ε_{t+1} = log(10 ε₀) − (√t / γ) Σ_{i≤t} (δ − α_i) / (t + t₀), averaged with weights t^−κ (Hoffman & Gelman, eq. 6)."""
    state, rng, step_size, losses, mean = mcmc.init(draw(3, 2), quartic), generator(12), 0.1, [], 0.0
    for t in range(1, 7):
        state, info = Mala(step_size).step(rng, state, quartic)
        losses.append(0.574 - float(info.acceptance.mean()))
        log_step = math.log(10 * 0.1) - math.sqrt(t) / 0.05 * sum(losses) / (t + 10)
        step_size, mean = math.exp(log_step), t**-0.75 * log_step + (1 - t**-0.75) * mean
    adapted, end = adapt(Mala(0.1), draw(3, 2), quartic, 6, generator(12), target=0.574)
    assert adapted.step_size == pytest.approx(math.exp(mean)) and torch.allclose(end.position, state.position)
    assert abs(mean - log_step) > 0.1


# ----------------------------------------------------------------------------------------- what is promised of all


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_generator_is_the_only_randomness(sampler):
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    first = run(sampler, draw(4, 2), standard, 10, generator(14))
    torch.randn(3), np.random.rand(3)  # what others draw changes nothing
    torch.random.set_rng_state(before[0])
    again = run(sampler, draw(4, 2), standard, 10, generator(14))
    other = run(sampler, draw(4, 2), standard, 10, generator(15))
    assert torch.equal(first.draws, again.draws) and not torch.equal(first.draws, other.draws)
    assert torch.equal(torch.random.get_rng_state(), before[0])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_global_generators_are_untouched(sampler):
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    run(sampler, draw(4, 2), standard, 3, generator(14))
    assert torch.equal(torch.random.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 2), (3, 2, 4, 4), (2,)])
def test_shapes_and_types(sampler, dtype, shape):
    start = zeros(*shape, dtype=dtype).requires_grad_()
    with torch.no_grad():  # a caller who samples has often switched gradients off
        chains = run(sampler, start, standard, 5, generator(16))
    assert chains.draws.shape == (5, *shape) and chains.draws.dtype == dtype and not chains.draws.requires_grad
    assert torch.equal(chains.draws[-1], chains.state.position) and torch.equal(start, zeros(*shape, dtype=dtype))
    assert torch.equal(chains.state.gradient, chains.state.position) and not chains.state.energy.requires_grad
    for entries in (chains.info.acceptance, chains.info.accepted, chains.info.energy_error):
        assert entries.shape == (5, shape[0])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_float32_follows_float64(sampler):
    single, double = (
        run(sampler, zeros(500, 2, dtype=t), standard, 100, generator(17)).draws[20:] for t in (torch.float32, torch.float64)
    )
    for draws in (single, double):
        assert float((draws**2).mean()) == pytest.approx(1 / (1 - 0.5**2 / 4) if isinstance(sampler, Langevin) else 1, abs=0.05)


def test_an_energy_of_another_type_is_taken_in_the_type_of_x():
    state = mcmc.init(zeros(2, 1), lambda x: standard(x).float())
    assert state.energy.dtype == state.gradient.dtype == torch.float64


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_parameters_of_an_energy_get_no_gradient(sampler):
    layer = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    run(sampler, zeros(3, 2), lambda x: standard(x * layer), 3, generator(18))
    assert layer.grad is None


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_start_is_copied(sampler):
    x = draw(3, 2)
    state = sampler.init(x, standard)
    x += 1
    assert torch.equal(state.position, x - 1) or torch.allclose(state.position, x - 1)
    assert torch.equal(state.energy, standard(state.position))


# ------------------------------------------------------------------------------------------------- non-finite


class Slope(torch.autograd.Function):
    """Zero, with a gradient of its own: energies may be finite where their gradients are not."""

    @staticmethod
    def forward(ctx, x, slope):
        ctx.save_for_backward(slope)
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, above):
        return ctx.saved_tensors[0] * above, None


def walled(beyond, gradient=1.0):
    """Standard normal where x < 0; beyond, the energy ``beyond`` with a gradient of its own."""

    def energy(x):
        slope = torch.where(x[:, 0] < 0, 0.0, gradient)  # 0 · NaN would spoil the inside
        return torch.where(x[:, 0] < 0, standard(x), beyond + Slope.apply(x[:, 0], slope))

    return energy


@pytest.mark.parametrize("sampler", [Mala(1.0), Hmc(0.7, leaps=3)])
@pytest.mark.parametrize(
    ("beyond", "gradient"), [(math.inf, 1), (-math.inf, 1), (math.nan, 1), (-5.0, math.nan), (-5.0, math.inf)]
)
def test_moves_that_are_not_finite_are_rejected(sampler, beyond, gradient):
    chains = run(sampler, -draw(1000, 1).abs(), walled(beyond, gradient), 150, generator(19))
    assert bool((chains.draws < 0).all()) and bool(torch.isfinite(chains.state.gradient).all())
    assert float((chains.info.energy_error == math.inf).double().mean()) > 0.05
    assert bool((chains.info.acceptance[chains.info.energy_error == math.inf] == 0).all())
    if sampler == Mala(1.0):  # one leap: a wall is only a rejection, and the half normal stays exact
        terms = chains.draws[30:]
        error = float(terms.std() / effective_sample_size(terms).sqrt())
        assert abs(float(terms.mean()) + math.sqrt(2 / math.pi)) < 4 * error < 0.03


@pytest.mark.parametrize("sampler", [Mala(1e3), Hmc(1e3, leaps=400)])
def test_an_energy_is_never_asked_off_the_finite_numbers(sampler):
    def strict(x):
        assert bool(torch.isfinite(x).all())
        return quartic(x)

    chains = run(sampler, draw(5, 2), strict, 3, generator(20))
    assert not chains.info.accepted.any() and torch.equal(chains.state.position, draw(5, 2))


def test_a_trajectory_that_overflows_is_rejected_though_it_began_well():
    start = draw(200, 1)
    state, info = Hmc(1e308, leaps=2).step(generator(20), mcmc.init(start, lambda x: 0 * x.sum(1)), lambda x: 0 * x.sum(1))
    far = 2 * normal((200, 1), generator(20), start)[:, 0].abs() > torch.finfo(torch.float64).max / 1e308
    assert 0 < int(far.sum()) < 200 and torch.equal(info.accepted, ~far)
    assert torch.equal(state.position[far], start[far])


@pytest.mark.parametrize("beyond", [math.inf, math.nan])
def test_langevin_names_the_row(beyond):
    start = torch.tensor([[-50.0], [-0.01], [-50.0]])
    with pytest.raises(FloatingPointError, match="of row 1 is not finite after a step of size 0.5; take a smaller one, or Mala"):
        run(Langevin(0.5), start, walled(beyond), 40, generator(21))


def test_langevin_names_the_row_that_diverges():
    with pytest.raises(FloatingPointError, match="of row 2 is not finite after a step of size 1;"):
        run(Langevin(1.0), torch.tensor([[0.0], [0.0], [9.0]], dtype=torch.float64), quartic, 20, generator(22))


BAD_CALLS = [
    (lambda: Mala(0.0), "step_size: expected a finite number above 0, got 0.0"),
    (lambda: Langevin("a"), "step_size: expected a finite number above 0, got 'a'"),  # type: ignore[arg-type]
    (lambda: adapt(Langevin(1.0), zeros(2, 1), standard, 3, generator(0)), "expected Mala or Hmc, got Langevin"),  # type: ignore[type-var]
    (lambda: Langevin(-1.0), "got -1.0; give a length"),
    (lambda: Hmc(math.nan, leaps=2), "got nan"),
    (lambda: Hmc(math.inf, leaps=2), "got inf"),
    (lambda: Hmc(0.1, leaps=0), "leaps: expected a whole number of at least 1, got 0"),
    (lambda: Hmc(0.1, leaps=1.5), "leaps: .* got 1.5"),
    (lambda: run(Mala(0.1), zeros(2, 1), standard, 0, generator(0)), "steps: .* got 0"),
    (lambda: run(Mala(0.1), zeros(2, 1), standard, True, generator(0)), "steps: .* got True"),
    (lambda: adapt(Mala(0.1), zeros(2, 1), standard, 0, generator(0)), "steps: .* got 0"),
    (lambda: adapt(Mala(0.1), zeros(2, 1), standard, 9, generator(0), target=1.0), "target: .* between 0 and 1, got 1.0"),
    (lambda: mcmc.init([[0.0]], standard), "x: expected a float32 or float64 tensor .* got list; give one row per chain"),
    (lambda: mcmc.init(torch.zeros(2, 1, dtype=torch.int64), standard), r"got torch.int64 \(2, 1\)"),
    (lambda: mcmc.init(torch.zeros(2, 1, dtype=torch.float16), standard), r"got torch.float16"),
    (lambda: mcmc.init(zeros(0, 2), standard), r"got torch.float64 \(0, 2\)"),
    (lambda: mcmc.init(torch.tensor(1.0), standard), r"got torch.float32 \(\)"),
    (lambda: mcmc.init(torch.tensor([[0.0], [math.nan]]), standard), "x: row 1 is not finite"),
    (lambda: mcmc.init(torch.tensor([[-1.0], [1.0]]), walled(math.inf)), "x: row 1 has energy inf .* start that chain elsewhere"),
    (lambda: mcmc.init(torch.tensor([[-1.0], [1.0]]), walled(0, math.nan)), "x: row 1 has energy 0 and gradient of norm nan"),
    (lambda: mcmc.init(zeros(3, 2), lambda x: x**2), r"energy: expected shape \(3,\), one number a row, got \(3, 2\)"),
    (lambda: mcmc.init(zeros(3, 2), lambda x: 1.0), "energy: .* got float"),
    (lambda: mcmc.init(zeros(3, 2), lambda x: standard(x.detach())), "energy: .* gradient in x, .* do not detach x"),
    (lambda: mcmc.init(zeros(3, 2), lambda x: zeros(3).requires_grad_() * 1), "energy: .* gradient in x"),
]


@pytest.mark.parametrize(("call", "told"), BAD_CALLS)
def test_bad_arguments_are_named(call, told):
    with pytest.raises(InputError, match=told):
        call()


# ------------------------------------------------------------------------------------------------ diagnostics


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
@pytest.mark.parametrize("chains", [1, 4])
def test_effective_sample_size_of_ar1_chains(rho, chains):
    """The mean of T n draws has variance (1 + ρ) / (1 − ρ) / (T n)."""
    found = float(effective_sample_size(ar1(20_000, chains, rho)))
    assert found == pytest.approx(20_000 * chains * (1 - rho) / (1 + rho), rel=0.12)


@pytest.mark.parametrize("seed", range(4))
def test_effective_sample_size_by_hand(seed):
    """The definition, one lag at a time."""
    x = ar1(60, 2, 0.6, seed=seed).numpy()
    halves = np.concatenate([x[:30], x[30:]], 1)
    centred = halves - halves.mean(0)
    within = halves.var(0, ddof=1).mean()
    total = 29 / 30 * within + halves.mean(0).var(ddof=1)
    rho = [1.0] + [1 - (within - np.mean((centred[t:] * centred[:-t]).sum(0) / 30)) / total for t in range(1, 30)]
    tau, last = -1.0, math.inf
    for k in range(15):
        pair = rho[2 * k] + rho[2 * k + 1]
        if pair < 0:
            break
        last = min(last, pair)
        tau += 2 * last
    assert float(effective_sample_size(torch.as_tensor(x))) == pytest.approx(120 / tau)


def test_effective_sample_size_is_the_precision_of_the_mean():
    x = ar1(400, 4000, 0.7).reshape(400, 1000, 4)
    each = torch.stack([effective_sample_size(x[:, i, j][:, None]) for i in range(50) for j in range(4)])
    assert float(each.mean()) == pytest.approx(1 / float(x.mean(0).var()), rel=0.15)


def test_effective_sample_size_by_entry():
    x = torch.stack([ar1(2000, 4, 0.9), ar1(2000, 4, 0.0)], -1)
    found = effective_sample_size(x)
    assert found.shape == (2,) and found.dtype == torch.float64
    assert torch.allclose(found, torch.stack([effective_sample_size(x[..., i]) for i in range(2)]))
    assert torch.allclose(found, effective_sample_size(100 + 3 * x)) and float(found[1] / found[0]) > 10
    assert effective_sample_size(x.reshape(2000, 4, 2, 1).float()).shape == (2, 1)


def test_effective_sample_size_of_chains_apart_is_a_few():
    x = ar1(1000, 4, 0.0) + torch.tensor([0.0, 0.0, 0.0, 20.0])
    assert float(effective_sample_size(x)) < 10
    alternating = torch.tensor([1.0, -1.0]).repeat(500)[:, None] + 1e-3 * ar1(1000, 4, 0.0)
    assert float(effective_sample_size(alternating)) == pytest.approx(4000 * math.log10(4000))


def test_r_hat_is_near_one_for_equal_chains():
    for rho, chains in ((0.0, 4), (0.5, 4), (0.0, 1)):
        assert 0.999 < float(r_hat(ar1(4000, chains, rho))) < 1.01


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x + torch.tensor([0.0, 0.0, 0.0, 3.0]),  # a chain elsewhere
        lambda x: x * torch.tensor([1.0, 1.0, 1.0, 0.1]),  # one of another scale
        lambda x: x + torch.linspace(0, 3, 2000)[:, None],  # a drift that all share
    ],
)
def test_r_hat_sees_chains_that_differ(spoil):
    assert float(r_hat(spoil(ar1(2000, 4, 0.0)))) > 1.1
    assert float(effective_sample_size(spoil(ar1(2000, 4, 0.0)))) < 8000


def test_r_hat_depends_on_ranks_only():
    """A Cauchy law has no variance, and its chains still compare: rank-normalised z are those of any monotone map."""
    x = ar1(500, 4, 0.0) + torch.tensor([0.0, 0.0, 0.0, 1.0])
    located = mcmc._split_r_hat(mcmc._halves(x)[0])
    assert torch.allclose(located, mcmc._split_r_hat(mcmc._halves(x**3 + x)[0]))
    assert float(r_hat(torch.tan(math.pi * (torch.special.ndtr(ar1(2000, 4, 0.0)) - 0.5)))) < 1.01


def test_r_hat_by_hand():
    """Two chains of four draws; halves {1,2}, {3,4}, {5,6}, {7,8}: z of ranks 1 … 8, then W, V as written out."""
    z = norm.ppf((np.arange(1, 9) - 0.375) / 8.25).reshape(4, 2)
    within, between = z.var(1, ddof=1).mean(), z.mean(1).var(ddof=1)
    expected = math.sqrt((within / 2 + between) / within)
    assert float(r_hat(torch.arange(1.0, 9.0).reshape(2, 4).T)) == pytest.approx(expected)


def test_r_hat_of_chains_that_stand_still_and_of_two_values():
    assert float(r_hat(torch.tensor([0.0, 1.0, 2.0]).expand(10, 3))) == math.inf
    x = ar1(1000, 4, 0.0)
    two = torch.where(x > np.median(x), 1.0, -1.0)  # |x − median| is 1 everywhere
    assert 0.99 < float(r_hat(two)) < 1.02
    stacked = r_hat(torch.stack([ar1(500, 4, 0.0), ar1(500, 4, 0.0) + torch.arange(4.0)], -1))
    assert stacked.shape == (2,) and float(stacked[0]) < 1.02 < 1.5 < float(stacked[1])


@pytest.mark.parametrize("diagnostic", [effective_sample_size, r_hat])
def test_draws_that_cannot_be_used_are_named(diagnostic):
    with pytest.raises(InputError, match=r"T ≥ 4 draws of each of n chains, got \(3, 2\); run more steps"):
        diagnostic(zeros(3, 2))
    with pytest.raises(InputError, match=r"got \(9,\)"):
        diagnostic(zeros(9))
    with pytest.raises(InputError, match="got ndarray"):
        diagnostic(np.zeros((9, 2)))
    spoilt = ar1(10, 3, 0.0)
    spoilt[7, 2] = math.nan
    with pytest.raises(InputError, match="draw 7 of chain 2, entry 0, is nan, expected a finite number"):
        diagnostic(spoilt)
    with pytest.raises(InputError, match="entry 1 is 5 in every draw, expected an entry that varies"):
        diagnostic(torch.stack([ar1(10, 3, 0.0), zeros(10, 3) + 5], -1))
