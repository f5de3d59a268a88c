//! What the scheduler decides: the state machines of a run and of an agent, and the choice of agents. No IO, no clock.
//!
//! `fn apply(state, event, now) -> effects`: the shells (server, store, agent) turn the world into events and carry
//! the effects out. Everything here is total: each pair of state and event has a defined answer.
//!
//! Invariants, checked by the properties and the simulation in `tests/`:
//! * a step has at most one live attempt, and attempt numbers only grow;
//! * a refused event changes nothing;
//! * a finished run never changes again, and every run finishes if time passes;
//! * the machinery's losses never count as a step's failure.

pub mod agent;
pub mod delivery;
pub mod message;
pub mod run;
pub mod schedule;
pub mod task;
pub mod timer;
pub mod trigger;
pub mod wave;
pub mod webhook;
