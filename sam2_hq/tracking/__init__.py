"""Objects through time: memory rules, state, the tracker."""
