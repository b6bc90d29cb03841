//! SASL mechanisms of mail clients as challenge to response, without I/O, clock or randomness.
