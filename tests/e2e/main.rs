//! The end-to-end tests: what a user does, on a real engine.

mod quick_build;
