//! Requests for runs of task files: the file comes with the request, or lies in its source.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use super::{PlatformView, default_timeout};

/// Asks for a task file to be run that comes with the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncodedTaskRunRequest {
    /// The task file, in base64.
    #[schema(value_type = String, format = Byte)]
    pub encoded_task_content: EncodedText,
    /// The values file, in base64.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Byte)]
    pub encoded_values_content: Option<EncodedText>,
    /// What faults call the task file; an extension of ours.
    #[serde(default)]
    pub task_file_path: Option<String>,
    /// What faults call the values file; an extension of ours.
    #[serde(default)]
    pub values_file_path: Option<String>,
    /// Files that the task file takes aliases from, by the paths that it names, in base64; an extension of ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub files: BTreeMap<String, EncodedText>,
    /// What is the same for every task.
    #[serde(flatten)]
    pub common: TaskRunCommon,
}

/// Asks for a task file to be run that lies in the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileTaskRunRequest {
    /// The task file's path inside the source's folder; `acr-task.yaml` if absent, or `acb.yaml` if that is not there: an
    /// extension of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_file_path: Option<String>,
    /// The values file's path inside the source's folder.
    #[serde(default)]
    pub values_file_path: Option<String>,
    /// What is the same for every task.
    #[serde(flatten)]
    pub common: TaskRunCommon,
}

/// What requests for task files have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskRunCommon {
    /// Values for `.Values`; of two with the same name, the later one counts.
    #[serde(default)]
    pub values: Vec<SetValue>,
    /// Seconds of work after which the run ends.
    #[serde(default = "default_timeout")]
    #[schema(minimum = 1, maximum = 28800)]
    pub timeout: u32,
    /// What steps run for that don't say it themselves; `linux/amd64` if absent.
    #[serde(default)]
    pub platform: Option<PlatformView>,
    /// The id of an uploaded context, a place in a Git repository, an archive's URL, or an artifact: what the workspace
    /// begins with. It begins empty if absent.
    #[serde(default)]
    pub source_location: Option<String>,
    /// The pool to send the run to.
    #[serde(default)]
    pub agent_pool_name: Option<String>,
    /// Where steps work that don't say it themselves, inside the workspace; an extension of ours.
    #[serde(default)]
    pub working_directory: Option<String>,
}

/// A value for a task file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetValue {
    /// Its name in `.Values`.
    pub name: String,
    /// Always a text.
    pub value: String,
    /// Whether it is kept out of logs and records.
    #[serde(default)]
    pub is_secret: bool,
}

/// Shows no value: whether it is a secret is the user's word, and people forget.
impl fmt::Debug for SetValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetValue").field("name", &self.name).field("is_secret", &self.is_secret).finish_non_exhaustive()
    }
}

/// A text that is base64 on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedText(pub String);

impl fmt::Debug for EncodedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedText({} bytes)", self.0.len())
    }
}

impl Serialize for EncodedText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for EncodedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(&text).map_err(|_| de::Error::custom("the content is not base64"))?;
        String::from_utf8(bytes).map(Self).map_err(|_| de::Error::custom("the content is not text in UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::RunRequest;

    #[test]
    fn a_task_comes_with_its_request_or_lies_in_the_source() {
        let encoded = r#"{"type":"EncodedTaskRunRequest","encodedTaskContent":"c3RlcHM6IFtd","values":[{"name":"a","value":"b"}]}"#;
        let RunRequest::EncodedTaskRunRequest(request) = serde_json::from_str(encoded).expect("valid") else {
            panic!()
        };
        assert_eq!((request.encoded_task_content.0.as_str(), request.common.timeout), ("steps: []", 3600));
        let file =
            r#"{"type":"FileTaskRunRequest","taskFilePath":"acb.yaml","sourceLocation":"https://git.example/a.git"}"#;
        let RunRequest::FileTaskRunRequest(request) = serde_json::from_str(file).expect("valid") else { panic!() };
        assert_eq!(request.task_file_path.as_deref(), Some("acb.yaml"));
        let text = serde_json::to_string(&RunRequest::FileTaskRunRequest(request.clone())).expect("json");
        let again: RunRequest = serde_json::from_str(&text).expect("valid");
        assert_eq!(again, RunRequest::FileTaskRunRequest(request));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (json, name) in [
            (r#"{"type":"EncodedTaskRunRequest","encodedTaskContent":"~"}"#, "base64"),
            (r#"{"type":"EncodedTaskRunRequest"}"#, "encodedTaskContent"),
            (r#"{"type":"FileTaskRunRequest","taskFilePath":"a","valueFilePath":"b"}"#, "valueFilePath"),
        ] {
            let error = serde_json::from_str::<RunRequest>(json).expect_err(json).to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
