//! What a task tells others on the wire: its update-trigger endpoint and its forge.

use cooper_types::{EventId, RunId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::{rfc3339, rfc3339_option};
use super::webhook::DeliveryStatus;

/// Whom a task tells something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum NotificationKind {
    /// Its update-trigger endpoint, of a run that a base image has set off.
    UpdateTrigger,
    /// Its repository's forge, of how a commit's run stands.
    CommitStatus,
}

impl NotificationKind {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpdateTrigger => "UpdateTrigger",
            Self::CommitStatus => "CommitStatus",
        }
    }
}

/// Something that a task tells, and how far that is. Of an endpoint's address and answers, its host and the status alone are in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationView {
    /// Whom.
    pub kind: NotificationKind,
    /// The event's id; a commit's status is sent again by its run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<EventId>,
    /// The run that it is about.
    #[schema(value_type = String)]
    pub run_id: RunId,
    /// Of a commit's status, what it says now: `pending`, `success`, `failure` or `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Of a commit's status, the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_id: Option<String>,
    /// When there was something to tell.
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
    /// When the last try ended, as far as that is known.
    #[serde(with = "rfc3339_option", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_attempt_time: Option<Timestamp>,
    /// The status of the last answer; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_status_code: Option<u16>,
    /// Why the last try came to nothing, in the server's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is told once more: an event's id, or of a commit's status its run's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotificationInfo {
    /// The id.
    pub id: String,
}

/// What `GET /tasks/{id}/notifications` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationList {
    /// What is told, the newest first.
    pub value: Vec<NotificationView>,
}
