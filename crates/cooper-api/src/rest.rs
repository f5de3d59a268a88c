//! The wire types of the REST API under `/api/v1`: field names are ACR's where ACR has the field.
//!
//! Requests refuse fields that they don't know; responses may gain fields, so readers accept unknown ones. Nothing
//! here decides anything: the server checks and the client shows.

mod agents;
mod context;
mod credential;
mod hooks;
mod info;
mod lock;
mod log;
mod newest;
mod notification;
mod pools;
mod request;
mod route;
mod run;
mod secret;
mod task;
mod time;
mod token;
mod wave;
mod webhook;

pub use agents::{AgentList, AgentState, AgentView, DrainAgent};
pub use context::{CreatedContext, UploadedContext};
pub use credential::{CredentialList, CredentialView, SetCredential};
pub use hooks::{
    DeliveryAnswer, DeliveryView, EventOutcomeView, HookList, HookSetup, HookView, LookKind, LookView, ReceiptStatus,
    RegistrationStatus, RegistrationView, RotateHookQuery, SeenHook, SourceEventType, SourceTriggerSettings,
    SourceTriggerView,
};
pub use info::{Health, IDENTITY_HEADER, Info};
pub use lock::{
    LOCKFILE_VERSION, LockedContext, LockedImage, LockedPlacement, LockedSecret, LockedSource, LockedStep, LockedText,
    LockedValue, Lockfile, NamedSecret, RerunRequest,
};
pub use log::{
    EndEvent, LOG_COMPLETE_HEADER, LOG_FRAMES_FORM, LOG_FRAMES_HEADER, LOG_OFFSET_HEADER, LogBatch, LogEventName,
    LogEventsQuery, LogFrame, LogQuery, LogStream, PackedLog, StatusEvent, VertexUpdate,
};
pub use newest::{ListNotificationsQuery, ListWavesQuery, ListWebhookEventsQuery, NewestQuery};
pub use notification::{NotificationInfo, NotificationKind, NotificationList, NotificationView};
pub use pools::{CreatePool, DeletePoolQuery, PoolList, PoolView};
pub use request::{
    Argument, BuildSecret, DEFAULT_TIMEOUT_SECONDS, DockerBuildRequest, EncodedTaskRunRequest, EncodedText,
    FileTaskRunRequest, IDEMPOTENCY_KEY_HEADER, Label, MAX_TIMEOUT_SECONDS, MIN_TIMEOUT_SECONDS, RunRequest,
    SecretValue, SetValue, TaskRunCommon,
};
pub use route::{API_PREFIX, Auth, Content, Method, Parameter, ParameterKind, ROUTES, Route};
pub use run::{
    AgentConfiguration, Dependency, GitHead, ImageDependency, ListRunsQuery, OutputImage, PlatformView,
    ProvisioningState, RerunView, Run, RunList, RunStatus, RunStep, RunType, StepStatus, StepType, UnknownName,
};
pub use secret::{
    CheckSecrets, CheckedSecret, CheckedSecrets, DeleteSecretQuery, SecretList, SecretVersionView, SecretView,
    SetSecret,
};
pub use task::{
    CatchUp, DockerStepSettings, EncodedStepSettings, FileStepSettings, FiredView, ListTasksQuery, ListTimersQuery,
    Moment, ReplaceTaskQuery, SetTaskCredential, StepSettings, TaskCredentialView, TaskList, TaskRunRequest,
    TaskSettings, TaskStatus, TaskValue, TaskView, TimerList, TimerSettings, TimerTrigger, TimerView, UpdateRun,
};
pub use token::{CreateToken, CreatedToken, TokenList, TokenView};
pub use wave::{
    BaseImageTriggerSettings, BaseImageTriggerType, ImageUpdateTrigger, ImpactQuery, ImpactRefusal, ImpactTask,
    ImpactView, RefusalList, RefusalView, RegistryHookView, UpdatePayloadType, UpdateTriggerSecret, UpdatedImage,
    WaveChange, WaveList, WaveMember, WaveView,
};
pub use webhook::{
    DeliveryStatus, WebhookAttempt, WebhookConfig, WebhookEvent, WebhookEventInfo, WebhookEventList, WebhookList,
    WebhookSettings, WebhookStatus, WebhookView,
};
