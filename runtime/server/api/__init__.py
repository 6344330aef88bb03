"""What the server answers: its paths, their requests and their answers.

======================  ============================================================================
module                  what it is about
======================  ============================================================================
:mod:`routes`           all paths
:mod:`endpoint`         a path that is answered
:mod:`openapi`          ``/openapi.json``, made from them
:mod:`bodies`           request bodies: read within limits, and their fields
:mod:`structured`       the form of an answer, as the API spells it
:mod:`prompts`          messages and images to a conversation
:mod:`chat_prompt`      a conversation to ids and pixels
:mod:`answering`        tokens to text, with probabilities, until a stop
:mod:`chat`             ``/v1/chat/completions``
:mod:`completions`      ``/v1/completions``
:mod:`response_fields`  the body of ``/v1/responses``
:mod:`responses`        ``/v1/responses``
:mod:`responding`       what these three have in common
:mod:`tokens`           ``/tokenize``, ``/detokenize`` and ``/tokenizer_info``
:mod:`model_list`       ``/v1/models``
:mod:`status`           ``/health``, ``/ready`` and ``/metrics``
======================  ============================================================================
"""
