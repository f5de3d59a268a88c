//! Requests for runs. The server checks their values; here is their form only.

mod task;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_types::SecretBytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use super::run::PlatformView;
pub use task::{EncodedTaskRunRequest, EncodedText, FileTaskRunRequest, SetValue, TaskRunCommon};

/// The header that makes a repeat of `POST /runs` return the first one's run.
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";
/// How long a run may work when nothing is said, in seconds.
pub const DEFAULT_TIMEOUT_SECONDS: u32 = 3600;
/// The shortest limit that can be asked for. ACR refuses less than 300; a shorter one harms nobody.
pub const MIN_TIMEOUT_SECONDS: u32 = 1;
/// The longest limit that can be asked for, as in ACR.
pub const MAX_TIMEOUT_SECONDS: u32 = 28800;

/// What `POST /runs` takes, told apart by `type`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type")]
pub enum RunRequest {
    /// One Dockerfile.
    DockerBuildRequest(DockerBuildRequest),
    /// A task file that comes with the request.
    EncodedTaskRunRequest(EncodedTaskRunRequest),
    /// A task file that lies in the source.
    FileTaskRunRequest(FileTaskRunRequest),
}

/// Asks for an image to be built from a Dockerfile in a context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DockerBuildRequest {
    /// Names for the image, without a registry or with one; `{{.Run.ID}}` and the other run variables work.
    #[serde(default)]
    pub image_names: Vec<String>,
    /// Whether the names are pushed.
    #[serde(default = "yes")]
    pub is_push_enabled: bool,
    /// Whether the build starts without a cache.
    #[serde(default)]
    pub no_cache: bool,
    /// Accepted for compatibility: bases are always resolved at their registry.
    #[serde(default)]
    pub pull: bool,
    /// Path of the Dockerfile inside the context, with `/` between its parts.
    #[serde(default = "dockerfile")]
    pub docker_file_path: String,
    /// The stage to build; the last one if absent.
    #[serde(default)]
    pub target: Option<String>,
    /// Build arguments; of two with the same name, the later one counts.
    #[serde(default)]
    pub arguments: Vec<Argument>,
    /// Labels of the image.
    #[serde(default)]
    pub labels: Vec<Label>,
    /// Secrets for `RUN --mount=type=secret`.
    #[serde(default)]
    pub secrets: Vec<BuildSecret>,
    /// Seconds of work after which the run ends: [`MIN_TIMEOUT_SECONDS`] to [`MAX_TIMEOUT_SECONDS`].
    #[serde(default = "default_timeout")]
    #[schema(minimum = 1, maximum = 28800)]
    pub timeout: u32,
    /// What to build for; `linux/amd64` if absent.
    #[serde(default)]
    pub platform: Option<PlatformView>,
    /// What to build for, where that is more than one: each is built, and the names are given to an index of all. Instead of
    /// `platform`; an addition to ACR's request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<PlatformView>,
    /// The id of an uploaded context, or a place in a Git repository: `https://host/repository.git#reference:folder`.
    pub source_location: String,
    /// The pool to send the run to.
    #[serde(default)]
    pub agent_pool_name: Option<String>,
}

fn yes() -> bool {
    true
}

fn dockerfile() -> String {
    "Dockerfile".to_owned()
}

fn default_timeout() -> u32 {
    DEFAULT_TIMEOUT_SECONDS
}

/// A build argument.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Argument {
    /// The argument's name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether the value is masked in logs and records. It still is in the image's history.
    #[serde(default)]
    pub is_secret: bool,
}

/// Shows no value: whether it is a secret is the user's word, and people forget.
impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Argument").field("name", &self.name).field("is_secret", &self.is_secret).finish_non_exhaustive()
    }
}

/// A label of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Label {
    /// The label's key.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// A secret that a build may read, and that no layer, history or log holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildSecret {
    /// The id in `RUN --mount=type=secret,id=…`.
    pub id: String,
    /// The value, in base64 with padding.
    #[schema(value_type = String, format = Byte)]
    pub value: SecretValue,
}

/// A secret's bytes: base64 on the wire, nothing in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(pub SecretBytes);

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for SecretValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0.expose()))
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The decoder's own error would quote a byte of the value.
        let bytes = STANDARD.decode(&text).map_err(|_| de::Error::custom("the value of a secret is not base64"))?;
        Ok(Self(SecretBytes::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<DockerBuildRequest, String> {
        match serde_json::from_str(json).map_err(|e| e.to_string())? {
            RunRequest::DockerBuildRequest(request) => Ok(request),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn absent_fields_have_acrs_defaults() {
        let request = parse(r#"{"type":"DockerBuildRequest","sourceLocation":"ctx-1"}"#).expect("valid");
        assert!(request.is_push_enabled && !request.no_cache && !request.pull);
        assert_eq!((request.timeout, request.docker_file_path.as_str()), (3600, "Dockerfile"));
    }

    #[test]
    fn unknown_fields_are_refused_by_name_at_every_depth() {
        for (json, name) in [
            (r#"{"type":"DockerBuildRequest","sourceLocation":"c","imageName":"a"}"#, "imageName"),
            (r#"{"type":"DockerBuildRequest","sourceLocation":"c","labels":[{"key":"a"}]}"#, "key"),
            (r#"{"type":"DockerBuildRequest","sourceLocation":"c","platform":{"os":"linux","arch":"arm"}}"#, "arch"),
            (r#"{"type":"OtherRequest"}"#, "OtherRequest"),
            (r#"{"type":"DockerBuildRequest"}"#, "sourceLocation"),
        ] {
            let error = parse(json).expect_err(json);
            assert!(error.contains(&format!("`{name}`")), "{error}");
        }
    }

    #[test]
    fn secrets_never_show() {
        let json = r#"{"type":"DockerBuildRequest","sourceLocation":"c","secrets":[{"id":"s","value":"aHVudGVyMg=="}],
            "arguments":[{"name":"A","value":"hunter2","isSecret":true}]}"#;
        let request = parse(json).expect("valid");
        assert_eq!(request.secrets[0].value.0.expose(), b"hunter2");
        assert!(!format!("{request:?}").contains("hunter2"));
        assert!(serde_json::to_string(&request).expect("json").contains("aHVudGVyMg=="));
        let error = parse(&json.replace("aHVudGVyMg==", "~hunter2")).expect_err("not base64");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
