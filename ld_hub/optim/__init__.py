"""What decides an optimizer's steps, beside the loop that makes them: groups, averages, balance, length, batch."""
