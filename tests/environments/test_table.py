"""One row a kind, each with what the rest of benchbox asks of it."""

import pytest
from pydantic import BaseModel, ValidationError

from benchbox.environments import KINDS, environment, options_model
from benchbox.model import Availability, EnvironmentSpec


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_can_be_asked_whether_this_host_offers_it(kind: str) -> None:
    """Whoever asks; a no comes with reason and fix."""
    offer = environment(kind).check(EnvironmentSpec(kind, kind))
    assert isinstance(offer, Availability)
    assert offer.available or (offer.reason and offer.fix)


@pytest.mark.parametrize("kind", KINDS)
def test_options_are_strict_and_have_defaults(kind: str) -> None:
    """An option that does not exist is refused; none need be given."""
    model = options_model(kind)
    assert issubclass(model, BaseModel)
    model()
    with pytest.raises(ValidationError, match="bogus"):
        model.model_validate({"bogus": 1})


@pytest.mark.parametrize("kind", ["native", "container"])
def test_every_option_explains_itself(kind: str) -> None:
    """The schema that editors show is made from these."""
    fields = options_model(kind).model_fields
    assert {name for name, field in fields.items() if not field.description} == set()


def test_an_unknown_kind_is_a_key_error() -> None:
    """The scenario has checked it before."""
    with pytest.raises(KeyError):
        environment("jail")
    with pytest.raises(KeyError):
        options_model("jail")
