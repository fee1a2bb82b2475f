"""Memory: what it holds, beside a model that forgets nothing."""

from hypothesis import given
from hypothesis import strategies as st

from edge.memory import Found, Memory, memory_key
from shared.links import Address, Published

_STEPS = st.lists(st.tuples(st.sampled_from(["put", "get", "peek", "pop", "clear"]), st.integers(0, 12)), max_size=80)


@given(entries=st.integers(0, 8), steps=_STEPS)
def test_what_it_gives_is_what_was_put_there_last_and_it_stays_within_its_bound(
    entries: int, steps: list[tuple[str, int]]
) -> None:
    memory, model = Memory(entries), dict[bytes, Found]()
    for version, (step, number) in enumerate(steps):
        key = b"host/%d" % number
        match step:
            case "put":
                model[key] = Found(Published(version, None))
                memory.put(key, model[key])
            case "get":
                assert memory.get(key) in (None, model.get(key))
            case "peek":
                assert memory.peek(key) in (None, model.get(key))
            case "pop":
                model.pop(key, None)
                memory.pop(key)
            case _:
                model.clear()
                memory.clear()
        assert len(memory) <= entries
        assert all(memory.peek(key) is None for key in (b"host/%d" % n for n in range(13)) if key not in model)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_what_fits_into_half_of_it_is_never_forgotten(numbers: list[int]) -> None:
    memory = Memory(12)
    for number in numbers:
        key = b"host/%d" % number
        if memory.get(key) is None:
            memory.put(key, Found(Published(number, None)))
        assert memory.get(key) is not None
    assert {key for key in (b"host/%d" % number for number in numbers) if memory.peek(key) is None} == set()


def test_what_is_asked_for_stays_and_the_rest_goes() -> None:
    memory, favourite = Memory(10), b"host/favourite"
    memory.put(favourite, Found(Published(0, None)))
    for number in range(1000):
        memory.put(b"host/%d" % number, Found(Published(number, None)))
        assert memory.get(favourite) is not None
    assert memory.peek(b"host/1") is None


def test_the_key_is_what_a_request_says_where_it_is_in_normal_form() -> None:
    assert memory_key(Address("go.example", "/promo")) == b"go.example/promo"
