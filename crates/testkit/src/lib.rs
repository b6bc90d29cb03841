//! For tests only: scripted servers, real servers started privately, fault proxies, and the house test.
