"""Answers of a given form: a JSON schema, a regular expression, one of several texts, a grammar.

===================  ===============================================================================
module               what it is about
===================  ===============================================================================
:mod:`constraint`    the form that is asked for
:mod:`compiler`      a form to a matcher over the model's tokens
:mod:`token_matcher` which tokens may follow those that were chosen
:mod:`vocabulary`    the model's tokens, as llguidance reads them
===================  ===============================================================================

llguidance does the matching (Moskal et al., https://github.com/guidance-ai/llguidance); it is the
extra ``structured``, and imported once a form is asked for.
"""

from mvlm.runtime.structured_output.compiler import ConstraintCompiler
from mvlm.runtime.structured_output.constraint import Constraint
from mvlm.runtime.structured_output.token_matcher import Mask, TokenMatcher

__all__ = ["Constraint", "ConstraintCompiler", "Mask", "TokenMatcher"]
