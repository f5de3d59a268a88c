//! Webhooks: what is said of one, how it is shown, and the log of what was sent to it. Fields have ACR's names where ACR has
//! them. No answer but the one that makes it holds a secret.

use std::collections::BTreeMap;
use std::fmt;

use cooper_types::{EventId, PrincipalName, Timestamp, WebhookName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::{rfc3339, rfc3339_option};

/// What is said of a webhook. What is absent has its default in a new one, and stays as it is in a change.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookSettings {
    /// Its name: 1 to 50 letters, digits, `-` and `_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<WebhookName>,
    /// The address that events are posted to. It is shown by the webhook's configuration alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_uri: Option<String>,
    /// Headers that go with every event, in place of all earlier ones. Their values are never shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_headers: Option<BTreeMap<String, String>>,
    /// What it is told of: `push`, `delete`, `run_finished`, `wave_finished`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Vec<String>>,
    /// Of which images: `REPOSITORY:TAG`, `REPOSITORY:*`, or `REPOSITORY`, which means its tag `latest`; all if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Whether it is told of anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<WebhookStatus>,
    /// What requests are signed with: 16 to 200 visible ASCII characters. The server makes one for a new webhook if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Has the server make another secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new_secret: bool,
}

/// Shows neither address nor headers nor secret.
impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, actions, scope, status, .. } = self;
        let mut debug = f.debug_struct("WebhookSettings");
        debug.field("name", name).field("actions", actions).field("scope", scope).field("status", status);
        debug.finish_non_exhaustive()
    }
}

/// Whether a webhook is told of anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WebhookStatus {
    /// It is.
    #[default]
    Enabled,
    /// It is not; what waits for it waits on.
    Disabled,
}

/// A webhook.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookView {
    /// Its name.
    #[schema(value_type = String)]
    pub name: WebhookName,
    /// The host that it goes to, with the port where that is not the scheme's own.
    pub host: String,
    /// What it is told of.
    pub actions: Vec<String>,
    /// Of which images; all if empty.
    pub scope: String,
    /// Whether it is told of anything.
    pub status: WebhookStatus,
    /// Who changed it last.
    #[schema(value_type = String)]
    pub set_by: PrincipalName,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub create_time: Timestamp,
    /// How often it was changed.
    pub generation: u64,
    /// What requests are signed with: in the answer to the request that set it, and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// Shows no secret.
impl fmt::Debug for WebhookView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookView").field("name", &self.name).field("host", &self.host).finish_non_exhaustive()
    }
}

/// What `GET /webhooks` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookList {
    /// The webhooks, by name.
    pub value: Vec<WebhookView>,
}

/// What `GET /webhooks/{id}/config` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookConfig {
    /// The address that events are posted to.
    pub service_uri: String,
    /// The names of the headers that go with every event, each with `***` for its value.
    pub custom_headers: BTreeMap<String, String>,
}

/// An event that was queued for a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookEventInfo {
    /// Its id.
    #[schema(value_type = String)]
    pub id: EventId,
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum DeliveryStatus {
    /// It waits for its first or next try, or behind another one.
    Waiting,
    /// It is tried now.
    Trying,
    /// The receiver has taken it.
    Delivered,
    /// It is given up.
    Failed,
}

impl DeliveryStatus {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Trying => "Trying",
            Self::Delivered => "Delivered",
            Self::Failed => "Failed",
        }
    }
}

/// An event on its way to a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookEvent {
    /// The event's id; the same in a redelivery.
    #[schema(value_type = String)]
    pub id: EventId,
    /// What happened.
    pub action: String,
    /// To what: an image, a run, a wave; empty for a ping.
    pub subject: String,
    /// When it was queued.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    /// How far it is.
    pub status: DeliveryStatus,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether somebody asked for it again.
    pub redelivery: bool,
    /// When it is tried next at the earliest, while it waits.
    #[serde(with = "rfc3339_option", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_time: Option<Timestamp>,
    /// What the last try came to.
    #[serde(default)]
    pub last_attempt: Option<WebhookAttempt>,
    /// What is sent.
    pub content: serde_json::Value,
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookAttempt {
    /// When it ended.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The status of the receiver's answer; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// The answer's first bytes, or why there was none.
    pub answer: String,
}

/// What `GET /webhooks/{id}/events` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookEventList {
    /// The events, the newest first.
    pub value: Vec<WebhookEvent>,
}
