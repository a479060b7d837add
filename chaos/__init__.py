# SPDX-License-Identifier: Apache-2.0
"""Breaking things on purpose, many times, with a seed that reproduces each run.

``clock`` is a loop whose time jumps, ``wire`` a proxy with faults, ``weather`` what goes wrong and when,
``scenario`` many waits through it and the judgement on each; ``fuzz`` tries bad input, ``soak`` lasts.
"""
