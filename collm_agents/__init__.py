"""Learners for collaborative LLM agents: MC, CoLLM-CC and CoLLM-DC on one loop.

Importing this package is cheap; torch, transformers and peft are imported by the modules that need them.
"""
