"""Random choices are pure functions of the seed and a purpose."""

import random

import numpy as np
import pytest
import torch

from detector.seeding import derive_seed, generator, numpy_random_state, random_order, seed_torch

PURPOSES = [(), ("epoch",), ("epoch", 0), ("epoch", 1), (0, "epoch"), ("epoch", 1, 0), ("epoch", 10), ("augment", 0, 1),
            ("augment", 1, 0), ("augment", 11), ("augment", 1, 1), ("ab", "c"), ("a", "bc"), ("abc",), ("",), ("", "")]


def pcg64_outputs(seed: int, count: int) -> list[int]:
    """Computes PCG64, XSL RR 128/64, step by step (O'Neill 2014, 6.3.4), with numpy's seeding."""
    start = np.random.PCG64(seed).state["state"]
    state, outputs = start["state"], []
    for _ in range(count):
        state = (state * 0x2360ED051FC65DA44385DF649FCCF645 + start["inc"]) % 2**128
        value, shift = (state >> 64) ^ (state % 2**64), state >> 122
        outputs.append((value >> shift | value << (64 - shift)) % 2**64)
    return outputs


def test_equal_purposes_give_equal_seeds_and_different_purposes_different_ones():
    seeds = [derive_seed(seed, *purpose) for seed in (0, 1, 10, 2**40) for purpose in PURPOSES]
    assert seeds == [derive_seed(seed, *purpose) for seed in (0, 1, 10, 2**40) for purpose in PURPOSES]
    assert len(set(seeds)) == len(seeds)


def test_a_seed_is_a_63_bit_number():
    for step in range(200):
        assert 0 <= derive_seed(0, "step", step) < 2**63


def test_numbers_of_all_types_count_by_value():
    for number in (np.int64(1), np.int32(1), np.uint8(1), torch.tensor(1).item()):
        assert derive_seed(0, "image", number) == derive_seed(0, "image", 1)
        assert derive_seed(number, "image") == derive_seed(1, "image")


def test_seeds_spread_over_all_bits():
    seeds = [derive_seed(0, "step", step) for step in range(400)]
    for bit in range(63):  # 200 expected, deviation 10
        assert 140 < sum(seed >> bit & 1 for seed in seeds) < 260, bit


def test_a_generator_is_new_each_time_and_does_not_change_torch():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (torch.rand(4, generator=generator(9)).tolist() for _ in range(2))
    assert first == second != torch.rand(4, generator=generator(10)).tolist()
    assert torch.equal(torch.get_rng_state(), before)


def test_seeding_torch_repeats_its_draws():
    seed_torch(derive_seed(0, "sampling", 3))
    first = torch.randperm(50).tolist()
    seed_torch(derive_seed(0, "sampling", 3))
    assert torch.randperm(50).tolist() == first


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_an_order_is_a_permutation(count):
    order = random_order(derive_seed(0, "order"), count)
    assert order.dtype == np.int64 and order.shape == (count,)
    assert sorted(order.tolist()) == list(range(count))


def test_an_order_sorts_the_outputs_of_pcg64():
    for seed in (0, 1, derive_seed(3, "epoch", 4)):
        outputs = pcg64_outputs(seed, 50)
        assert random_order(seed, 50).tolist() == sorted(range(50), key=outputs.__getitem__)


def test_orders_of_other_seeds_differ():
    assert len({tuple(random_order(seed, 20).tolist()) for seed in range(50)}) == 50


def test_each_position_in_an_order_is_equally_likely():
    places = np.array([random_order(seed, 4) for seed in range(2000)])
    for place in range(4):  # 500 expected, deviation 19
        assert np.abs(np.bincount(places[:, place], minlength=4) - 500).max() < 100


def test_numpy_states_take_any_seed_and_repeat():
    for seed in (0, 1, 2**32 - 1, 2**63 - 1):
        assert numpy_random_state(seed).randint(0, 99, 5).tolist() == numpy_random_state(seed).randint(0, 99, 5).tolist()


def test_the_global_generators_are_not_changed():
    random.seed(0)
    np.random.seed(0)
    state = random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]
    random_order(3, 10)
    numpy_random_state(3).normal(size=3)
    assert state == (random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2])
