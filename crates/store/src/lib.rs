//! What the engine remembers, as a trait named by intent, with the battery every back end passes.
