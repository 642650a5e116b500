import numpy as np
import pytest
import torch
from scipy import stats

from knowrl_core.engines import sampling
from knowrl_core.engines.noise import row_keys, uniform
from knowrl_core.engines.sampling import Settings, draw

ROWS = 20_000


def settings(rows, temperature=1.0, top_p=1.0, seed=0):
    return Settings(
        keys=row_keys(torch.full((rows,), seed), torch.arange(rows)),
        temperature=torch.full((rows,), temperature, dtype=torch.float64),
        top_p=torch.full((rows,), top_p, dtype=torch.float64),
    )


def frequencies(logits, **kwargs):
    tokens, _ = draw(logits.expand(ROWS, -1).clone(), settings(ROWS, **kwargs), torch.zeros(ROWS, dtype=torch.long))
    return torch.bincount(tokens, minlength=logits.shape[-1]).numpy()


def assert_fits(counts, probabilities):
    inside = probabilities > 0
    assert counts[~inside].sum() == 0
    expected = probabilities[inside] / probabilities[inside].sum() * counts.sum()
    assert stats.chisquare(counts[inside], expected).pvalue > 1e-3


LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -1.5, -30.0]])


@pytest.mark.parametrize("candidates", [256, 3])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(monkeypatch, candidates, temperature):
    monkeypatch.setattr(sampling, "_CANDIDATES", candidates)  # 3: the rest runs as one
    expected = torch.softmax(LOGITS[0].double() / temperature, dim=-1).numpy()
    counts = frequencies(LOGITS, temperature=temperature)
    assert_fits(counts[:-1], expected[:-1])


@pytest.mark.parametrize("candidates", [256, 2])
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(monkeypatch, candidates):
    monkeypatch.setattr(sampling, "_CANDIDATES", candidates)  # 2: the nucleus reaches beyond the candidates
    probabilities = torch.softmax(LOGITS[0].double(), dim=-1).numpy()
    inside = np.cumsum(probabilities) - probabilities < 0.85
    assert 2 < inside.sum() < 6
    assert_fits(frequencies(LOGITS, top_p=0.85), np.where(inside, probabilities, 0))


def test_rows_sample_each_in_its_own_way():
    rows = settings(3)
    rows.temperature[0] = 0.0
    rows.top_p[1] = 1e-9
    tokens, logprobs = draw(LOGITS.expand(3, -1).clone(), rows, torch.zeros(3, dtype=torch.long))
    assert tokens[:2].tolist() == [0, 0]
    expected = torch.log_softmax(LOGITS[0], dim=-1)[tokens]
    assert logprobs.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_float_noise_hardly_changes_a_draw():
    logits = torch.randn((4000, 1000), generator=torch.Generator().manual_seed(0))
    shaken = logits + 1e-4 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    one, _ = draw(logits, settings(4000), torch.zeros(4000, dtype=torch.long))
    two, _ = draw(shaken, settings(4000), torch.zeros(4000, dtype=torch.long))
    assert (one != two).float().mean() < 2e-3


def test_noise_is_uniform_and_unrelated_between_streams():
    keys = row_keys(torch.arange(100), torch.zeros(100, dtype=torch.long))
    block = uniform(keys, torch.zeros(100, dtype=torch.long), torch.arange(200).expand(100, -1))
    assert stats.kstest(block.flatten().numpy(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(block.numpy()) - np.eye(100)).max() < 0.4
    assert np.abs(np.corrcoef(block.numpy().T) - np.eye(200)).max() < 0.5
    later = uniform(keys, torch.ones(100, dtype=torch.long), torch.arange(200).expand(100, -1))
    assert abs(np.corrcoef(block.flatten(), later.flatten())[0, 1]) < 0.03


def test_noise_is_pinned():
    # Samples of finished runs must stay reproducible: this value may never change.
    keys = row_keys(torch.tensor([2**63 - 1]), torch.tensor([3]))
    value = uniform(keys, torch.tensor([5]), torch.tensor([[17]])).item()

    def mix(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    key = mix((mix(2**63 - 1) + 3 * golden) % 2**64)
    bits = mix((mix((key + 5 * golden) % 2**64) + 18 * golden) % 2**64)
    assert value == ((bits >> 11) + 0.5) * 2.0**-53
