"""A planning task for three language models, as a package outside CoLLM. See `week_plan.task`."""
