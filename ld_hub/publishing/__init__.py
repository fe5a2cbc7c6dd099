"""From a model to a page that others can trust: cards and their facts, citations, push, verify."""
