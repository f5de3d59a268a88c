//! The keys of the settings and their names in each layer.

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Listen,
    TlsCert,
    TlsKeyFile,
    TlsSelfSigned,
    TlsName,
    DataDir,
    RegistryName,
    PublicUrl,
    Agent,
    AgentName,
    Engine,
    Slots,
    CacheBudget,
    MinFree,
    AllowPrivileged,
    AllowPorts,
    AllowNetwork,
    StepMemory,
    StepPids,
    AnonymousPull,
    BlobGrace,
    MaxContextSize,
    ContextRetention,
    ContextRetentionSize,
    BaseImagePoll,
    SourcePoll,
    WaveConcurrency,
    AllowSource,
    AllowWebhook,
    SourceCaFile,
    Frontend,
    ImageAliases,
    SecretEnv,
    SecretVault,
    VaultAddress,
    VaultTokenFile,
    VaultNamespace,
    VaultCaFile,
    ShutdownGrace,
    LogFormat,
    Log,
    AgentServer,
    AgentTokenFile,
    AgentPlatform,
    AgentPool,
    AgentDataDir,
    AgentCaFile,
    AgentInsecure,
}

impl Key {
    /// Every key.
    pub(crate) const ALL: [Self; 48] = [
        Self::Listen,
        Self::TlsCert,
        Self::TlsKeyFile,
        Self::TlsSelfSigned,
        Self::TlsName,
        Self::DataDir,
        Self::RegistryName,
        Self::PublicUrl,
        Self::Agent,
        Self::AgentName,
        Self::Engine,
        Self::Slots,
        Self::CacheBudget,
        Self::MinFree,
        Self::AllowPrivileged,
        Self::AllowPorts,
        Self::AllowNetwork,
        Self::StepMemory,
        Self::StepPids,
        Self::AnonymousPull,
        Self::BlobGrace,
        Self::MaxContextSize,
        Self::ContextRetention,
        Self::ContextRetentionSize,
        Self::BaseImagePoll,
        Self::SourcePoll,
        Self::WaveConcurrency,
        Self::AllowSource,
        Self::AllowWebhook,
        Self::SourceCaFile,
        Self::Frontend,
        Self::ImageAliases,
        Self::SecretEnv,
        Self::SecretVault,
        Self::VaultAddress,
        Self::VaultTokenFile,
        Self::VaultNamespace,
        Self::VaultCaFile,
        Self::ShutdownGrace,
        Self::LogFormat,
        Self::Log,
        Self::AgentServer,
        Self::AgentTokenFile,
        Self::AgentPlatform,
        Self::AgentPool,
        Self::AgentDataDir,
        Self::AgentCaFile,
        Self::AgentInsecure,
    ];

    /// The name in `cooper.toml`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::TlsCert => "tls-cert",
            Self::TlsKeyFile => "tls-key",
            Self::TlsSelfSigned => "tls-self-signed",
            Self::TlsName => "tls-name",
            Self::DataDir => "data-dir",
            Self::RegistryName => "registry-name",
            Self::PublicUrl => "public-url",
            Self::Agent => "agent",
            Self::AgentName => "agent-name",
            Self::Engine => "engine",
            Self::Slots => "slots",
            Self::CacheBudget => "cache-budget",
            Self::MinFree => "min-free",
            Self::AllowPrivileged => "allow-privileged",
            Self::AllowPorts => "allow-ports",
            Self::AllowNetwork => "allow-network",
            Self::StepMemory => "step-memory",
            Self::StepPids => "step-pids",
            Self::AnonymousPull => "anonymous-pull",
            Self::BlobGrace => "blob-grace",
            Self::MaxContextSize => "max-context-size",
            Self::ContextRetention => "context-retention",
            Self::ContextRetentionSize => "context-retention-size",
            Self::BaseImagePoll => "base-image-poll",
            Self::SourcePoll => "source-poll",
            Self::WaveConcurrency => "wave-concurrency",
            Self::AllowSource => "allow-source",
            Self::AllowWebhook => "allow-webhook",
            Self::SourceCaFile => "source-ca-file",
            Self::Frontend => "frontend",
            Self::ImageAliases => "image-aliases",
            Self::SecretEnv => "secret-env",
            Self::SecretVault => "secret-vault",
            Self::VaultAddress => "vault-address",
            Self::VaultTokenFile => "vault-token-file",
            Self::VaultNamespace => "vault-namespace",
            Self::VaultCaFile => "vault-ca-file",
            Self::ShutdownGrace => "shutdown-grace",
            Self::LogFormat => "log-format",
            Self::Log => "log",
            Self::AgentServer => "agent-server",
            Self::AgentTokenFile => "agent-token-file",
            Self::AgentPlatform => "agent-platform",
            Self::AgentPool => "agent-pool",
            Self::AgentDataDir => "agent-data-dir",
            Self::AgentCaFile => "agent-ca-file",
            Self::AgentInsecure => "agent-insecure",
        }
    }

    /// What holds where no layer says anything, for people.
    pub(crate) fn default_text(self) -> &'static str {
        match self {
            Self::Listen => "127.0.0.1:5000",
            Self::TlsCert | Self::TlsKeyFile => "no file",
            Self::TlsName => "no names",
            Self::TlsSelfSigned => "false",
            Self::DataDir => "~/.local/share/cooper",
            Self::RegistryName => "localhost:PORT",
            Self::PublicUrl => "the registry's name",
            Self::Agent => "true",
            Self::AgentName => "local",
            Self::Engine => "/var/run/docker.sock",
            Self::Slots => "2",
            Self::CacheBudget => "20GiB, or half of the disk if that is less",
            Self::MinFree => "2GiB, or 5% of the disk if that is less",
            Self::AllowPrivileged | Self::AllowPorts | Self::AnonymousPull => "false",
            Self::AllowNetwork => "none",
            Self::StepMemory => "unlimited",
            Self::StepPids => "16384",
            Self::MaxContextSize => "4GiB",
            Self::Frontend => "docker/dockerfile=builtin, and others are refused",
            Self::AllowSource | Self::AllowWebhook | Self::ImageAliases | Self::SecretEnv | Self::SecretVault => "none",
            Self::ContextRetention => "7d",
            Self::ContextRetentionSize => "20GiB",
            Self::BaseImagePoll => "10m",
            Self::SourcePoll => "10m",
            Self::WaveConcurrency => "4",
            Self::VaultAddress => "no server",
            Self::VaultTokenFile | Self::VaultCaFile | Self::SourceCaFile => "no file",
            Self::VaultNamespace => "no namespace",
            Self::ShutdownGrace => "20",
            Self::BlobGrace => "24h",
            Self::LogFormat => "pretty",
            Self::Log => "info",
            Self::AgentServer | Self::AgentTokenFile => "has to be given",
            Self::AgentPlatform => "the engine's own and emulated ones",
            Self::AgentPool => "the pool called default",
            Self::AgentDataDir => "the folder ~/.local/share/cooper-agent",
            Self::AgentCaFile => "no file",
            Self::AgentInsecure => "only when asked for",
        }
    }

    /// The environment variable.
    pub(crate) fn variable(self) -> String {
        format!("COOPER_{}", self.name().to_ascii_uppercase().replace('-', "_"))
    }

    /// The environment variables, the one that counts most first. Where an agent is all that a machine runs, its
    /// variables need not say whose they are.
    pub(crate) fn variables(self) -> Vec<String> {
        let mut variables = vec![self.variable()];
        if self.is_agents_own() {
            variables.push(self.variable().replacen("COOPER_AGENT_", "COOPER_", 1));
        }
        variables
    }

    /// The flag. Those of `cooper agent` need not say whose they are.
    pub(crate) fn flag(self) -> String {
        let name = match self {
            // One flag is one alias.
            Self::ImageAliases => "image-alias",
            key => key.name(),
        };
        match self.is_agents_own() {
            true => format!("--{}", name.strip_prefix("agent-").unwrap_or(name)),
            false => format!("--{name}"),
        }
    }

    /// The flag of `cooper agent`, whose own name is `--name`.
    pub(crate) fn agent_flag(self) -> String {
        match self {
            Self::AgentName => "--name".to_owned(),
            key => key.flag(),
        }
    }

    /// Whether `cooper agent` knows the key and `cooper serve` does not.
    pub(crate) fn is_agents_own(self) -> bool {
        match self {
            Self::AgentServer
            | Self::AgentTokenFile
            | Self::AgentPlatform
            | Self::AgentPool
            | Self::AgentDataDir
            | Self::AgentCaFile
            | Self::AgentInsecure => true,
            Self::Listen
            | Self::TlsCert
            | Self::TlsKeyFile
            | Self::TlsSelfSigned
            | Self::TlsName
            | Self::DataDir
            | Self::RegistryName
            | Self::PublicUrl
            | Self::Agent
            | Self::AgentName
            | Self::Engine
            | Self::Slots
            | Self::CacheBudget
            | Self::MinFree
            | Self::AllowPrivileged
            | Self::AllowPorts
            | Self::AllowNetwork
            | Self::StepMemory
            | Self::StepPids
            | Self::AnonymousPull
            | Self::MaxContextSize
            | Self::ContextRetention
            | Self::ContextRetentionSize
            | Self::BaseImagePoll
            | Self::SourcePoll
            | Self::WaveConcurrency
            | Self::AllowSource
            | Self::AllowWebhook
            | Self::SourceCaFile
            | Self::Frontend
            | Self::ImageAliases
            | Self::SecretEnv
            | Self::SecretVault
            | Self::VaultAddress
            | Self::VaultTokenFile
            | Self::VaultNamespace
            | Self::VaultCaFile
            | Self::ShutdownGrace
            | Self::BlobGrace
            | Self::LogFormat
            | Self::Log => false,
        }
    }

    /// The key of this name in `cooper.toml`.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// The key whose name is nearest, if one is near.
    pub(super) fn nearest(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase().replace('_', "-");
        let distances = Self::ALL.into_iter().map(|key| (strsim::damerau_levenshtein(&name, key.name()), key));
        let (distance, key) = distances.min_by_key(|(distance, _)| *distance)?;
        (distance <= key.name().len() / 3).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let check = |name: &str, expect: Option<Key>| assert_eq!(Key::nearest(name), expect, "{name}");
        check("data_dir", Some(Key::DataDir));
        check("DataDir", Some(Key::DataDir));
        check("registy-name", Some(Key::RegistryName));
        check("slot", Some(Key::Slots));
        check("something", None);
        assert_eq!(Key::MaxContextSize.variable(), "COOPER_MAX_CONTEXT_SIZE");
    }
}
