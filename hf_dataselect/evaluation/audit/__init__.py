"""How well scores predict what training on rows does: functions of plain arrays, which load no model and no run."""
