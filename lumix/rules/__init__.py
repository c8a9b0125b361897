"""Label space: rules that turn a prediction and a mixed batch into the weight of the own label."""

from lumix.rules.area import AreaRule
from lumix.rules.base import Rule
from lumix.rules.laws import BetaLaw, ConstantLaw, Law, NormalLaw
from lumix.rules.lumix import LUMixRule
from lumix.rules.transmix import TransMixRule

__all__ = ["AreaRule", "BetaLaw", "ConstantLaw", "LUMixRule", "Law", "NormalLaw", "Rule", "TransMixRule"]
