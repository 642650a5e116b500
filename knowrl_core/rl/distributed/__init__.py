"""Trainer ``deepspeed``: the update in processes of its own, on one or several nodes.

:func:`~knowrl_core.rl.distributed.launch.run_distributed` starts them and waits; in each of them
:mod:`knowrl_core.rl.distributed.rank` runs the same update as the torch trainer does, with
:class:`~knowrl_core.rl.distributed.backend.DeepSpeedBackend` in place of the one of one process.
"""
