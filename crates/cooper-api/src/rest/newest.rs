//! What lists take whose newest entries come first.

use serde::{Deserialize, Serialize};

/// How many of the newest are asked for; `DEFAULT_TOP` where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewestQuery<const DEFAULT_TOP: u32> {
    /// How many at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<u32>,
}

/// What `GET /waves` takes.
pub type ListWavesQuery = NewestQuery<15>;
/// What `GET /tasks/{id}/notifications` takes.
pub type ListNotificationsQuery = NewestQuery<20>;
/// What `GET /webhooks/{id}/events` takes.
pub type ListWebhookEventsQuery = NewestQuery<50>;

impl<const DEFAULT_TOP: u32> NewestQuery<DEFAULT_TOP> {
    /// How many are listed where nothing is said.
    pub const DEFAULT_TOP: u32 = DEFAULT_TOP;
    /// The most that are listed.
    pub const MAX_TOP: u32 = 1000;

    /// How many are listed, or the number that can't be.
    pub fn top(self) -> Result<u32, u32> {
        let top = self.top.unwrap_or(DEFAULT_TOP);
        if (1..=Self::MAX_TOP).contains(&top) { Ok(top) } else { Err(top) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_some_and_not_too_many() {
        let top = |top| ListWavesQuery { top }.top();
        assert_eq!([top(None), top(Some(1)), top(Some(1000))], [Ok(15), Ok(1), Ok(1000)]);
        assert_eq!([top(Some(0)), top(Some(1001))], [Err(0), Err(1001)]);
        assert!(serde_json::from_str::<ListWavesQuery>(r#"{"last":1}"#).is_err());
    }
}
