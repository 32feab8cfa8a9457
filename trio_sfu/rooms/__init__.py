"""Rooms as trio nurseries, reached by typed messages only."""
