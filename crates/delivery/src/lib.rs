//! What every mail destination is to the engine: the delivery trait in two steps, its parcels and outcomes.
