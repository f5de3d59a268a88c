//! Source triggers: hooks are made here, and what came to them is worked off.
//!
//! A delivery is answered when it is in the store ([`receive`]); [`rounds`] makes runs of its events, in the order in which
//! they came, for each task. An event sets off one run: the key of kind, reference and commit is written in the transaction
//! that accepts it. After a crash the rounds find what waits, and what was done before is known by its key.

mod body;
mod due;
mod forges;
mod git;
pub(crate) mod missed;
mod receive;
pub(crate) mod registering;
mod rooms;
mod rounds;
mod seen;
pub(crate) mod statuses;
pub(crate) mod supersede;
#[cfg(test)]
mod tests;
mod whose;
mod work;

use cooper_engine::trigger::provider::Provider;
use cooper_ports::hooks::NewHook;
use cooper_types::{HookId, SecretBytes, SecretString, SourceHost};

use crate::core::Core;

pub(crate) use receive::receive;
pub(crate) use rounds::run;
pub(crate) use seen::Hooks;
use work::{Started, Told, known, start};

/// A hook with a random id and a random secret, which is told once.
pub(crate) fn new_hook(core: &Core, provider: Provider) -> (NewHook, SecretString) {
    let id = HookId::parse(&format!("{:032x}", rand::random::<u128>())).expect("32 hexadecimal digits");
    let (secret, sealed) = new_secret(core, &id);
    (NewHook { id, provider, sealed }, secret)
}

/// A random secret for a hook, in clear and encrypted.
pub(crate) fn new_secret(core: &Core, id: &HookId) -> (SecretString, Vec<u8>) {
    let secret: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let sealed = core.key.seal(&purpose(id), &SecretBytes::new(secret.as_bytes().to_vec()));
    (SecretString::new(secret), sealed)
}

/// The host of a repository's forge, where requests can be made there at all.
pub(crate) fn forge_host(provider: Provider, repository: &str) -> Option<SourceHost> {
    forges::place(provider, repository).ok().map(|(_, host)| host)
}

/// What a hook's secrets are bound to when they are sealed.
fn purpose(id: &HookId) -> String {
    format!("hook/{id}")
}
