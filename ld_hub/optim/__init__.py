"""What decides an optimizer's steps, beside the loop that makes them: groups of parameters, averages, balance, length."""
