//! What can be wrong with a delivery.

use cooper_engine::trigger::provider::Provider;

use super::{MAX_BODY, MAX_EVENTS};

/// Why a delivery is not understood. Each names the forge, and the event and the field where there is one.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The body is too large.
    #[error("the {provider} delivery is larger than {limit} MiB; push in smaller parts", limit = MAX_BODY >> 20)]
    TooLarge {
        /// The forge.
        provider: Provider,
    },
    /// The body is no JSON.
    #[error("the {provider} delivery is no JSON; set the hook's content type to application/json")]
    NotJson {
        /// The forge.
        provider: Provider,
        /// Where it ends to be some.
        #[source]
        source: serde_json::Error,
    },
    /// The body says too many things for its size.
    #[error("the {provider} delivery takes too much memory to be read; push in smaller parts")]
    TooMuch {
        /// The forge.
        provider: Provider,
    },
    /// A form without its one field.
    #[error("the {provider} delivery is a form without `payload`; set the hook's content type to application/json")]
    NoPayload {
        /// The forge.
        provider: Provider,
    },
    /// A header that is needed is not as it should be.
    #[error("the {provider} delivery's `{header}` header {reason}; is the hook another forge's?")]
    Header {
        /// The forge.
        provider: Provider,
        /// The header.
        header: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A field is missing.
    #[error("the {provider} event `{event}` has no `{field}`")]
    Missing {
        /// The forge.
        provider: Provider,
        /// The event, by the forge's name.
        event: String,
        /// The field's path in the body.
        field: String,
    },
    /// A field has a value that can't be.
    #[error("the {provider} event `{event}` has a `{field}` that can't be used: {reason}")]
    Invalid {
        /// The forge.
        provider: Provider,
        /// The event, by the forge's name.
        event: String,
        /// The field's path in the body.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More references than one push may change.
    #[error("the {provider} event `{event}` changes more than {MAX_EVENTS} references; push fewer at once")]
    TooMany {
        /// The forge.
        provider: Provider,
        /// The event, by the forge's name.
        event: String,
    },
}
