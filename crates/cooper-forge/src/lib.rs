//! What Git forges send and what they take: signatures of hooks, events, commit statuses, registration of hooks.
//!
//! Knows nothing of tasks, runs or the store. A request is verified over its raw body ([`verify`]) before anything in
//! it is read ([`parse`]), and becomes events in one form for all forges ([`cooper_engine::trigger::event`]). The contract
//! for senders is `docs/webhooks.md`.

pub mod api;
mod headers;
mod parse;
mod verify;

pub use parse::{Delivery, DeliveryId, MAX_BODY, MAX_EVENTS, ParseError, parse};
pub use verify::{MAX_AGE, Unsigned, verify, verify_head};
