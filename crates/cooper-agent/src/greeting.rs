//! What an agent says of itself on each new stream. It is said once a stream: when the engine turns out to be another
//! one, or emulates more or less than before, the stream is opened anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use cooper_api::agent::{SpokenByAgent, TAKES_IMAGES, wire};
use cooper_ports::agents::DiskSpace;
use cooper_ports::engine::EngineDescription;
use cooper_types::{Leave, Platform};
use tokio::sync::watch;

use crate::error::AgentError;
use crate::settings::{AgentSettings, StepPolicy};

/// Makes greetings of what is known now.
pub(crate) struct Greeting {
    /// All but what is said of the engine.
    hello: wire::Hello,
    /// The platforms that work is taken for; all if empty.
    wanted: BTreeSet<Platform>,
    /// Absent while there is no engine.
    engine: Option<watch::Receiver<Arc<EngineDescription>>>,
    disk: watch::Receiver<Option<DiskSpace>>,
}

impl Greeting {
    /// The greetings of one life of an agent. The settings may leave out some of what the engine can do, and name nothing
    /// that it cannot; what it can no longer do later is left out.
    pub(crate) fn new(
        settings: &AgentSettings,
        engine: watch::Receiver<Arc<EngineDescription>>,
        disk: watch::Receiver<Option<DiskSpace>>,
        incarnation: &str,
    ) -> Result<Self, AgentError> {
        let known = Arc::clone(&engine.borrow());
        let can = || std::iter::once(&known.native).chain(&known.emulated);
        if let Some(platform) = settings.platforms.iter().find(|platform| can().all(|has| has != *platform)) {
            return Err(AgentError::Platform { platform: platform.clone(), has: can().cloned().collect() });
        }
        let hello = Self::of(settings, incarnation);
        Ok(Self { hello, wanted: settings.platforms.clone(), engine: Some(engine), disk })
    }

    /// The greetings of a life of an agent that has no engine yet: for the platforms that it is wanted for, or the
    /// machine's own, so that whoever waits for such a platform hears why.
    pub(crate) fn without_engine(settings: &AgentSettings, incarnation: &str) -> Self {
        let (hello, disk) = (Self::of(settings, incarnation), watch::Sender::new(None).subscribe());
        Self { hello, wanted: settings.platforms.clone(), engine: None, disk }
    }

    fn of(settings: &AgentSettings, incarnation: &str) -> wire::Hello {
        wire::Hello {
            protocol: SpokenByAgent::THIS.newest,
            oldest_protocol: SpokenByAgent::THIS.oldest,
            pool: settings.pool.to_string(),
            name: settings.name.to_string(),
            incarnation: incarnation.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: settings.slots,
            capabilities: std::iter::once(TAKES_IMAGES.to_owned()).chain(allowed(&settings.steps)).collect(),
            ..wire::Hello::default()
        }
    }

    /// The greeting for a stream that opens now; [`Greeting::outdated`] is about it from then on.
    pub(crate) fn hello(&mut self) -> wire::Hello {
        let Some(engine) = &mut self.engine else {
            let native = match self.wanted.is_empty() {
                true => own_platform().into_iter().map(|platform| platform.to_string()).collect(),
                false => self.wanted.iter().map(Platform::to_string).collect(),
            };
            return wire::Hello { engine: "none".to_owned(), native_platforms: native, ..self.hello.clone() };
        };
        let engine = engine.borrow_and_update();
        let disk = *self.disk.borrow();
        let wanted = |platform: &&Platform| self.wanted.is_empty() || self.wanted.contains(*platform);
        let features = engine.features.iter().map(|feature| feature.as_str().to_owned());
        wire::Hello {
            engine: format!("{} {}", engine.name, engine.version),
            native_platforms: Some(&engine.native).filter(wanted).map(Platform::to_string).into_iter().collect(),
            capabilities: features.chain(self.hello.capabilities.iter().cloned()).collect(),
            emulated_platforms: engine.emulated.iter().filter(wanted).map(Platform::to_string).collect(),
            disk_free_bytes: disk.map(|disk| disk.free),
            disk_total_bytes: disk.map(|disk| disk.total),
            ..self.hello.clone()
        }
    }

    /// Returns when the last greeting is no longer true. Cancel-safe.
    pub(crate) async fn outdated(&mut self) {
        let changed = match &mut self.engine {
            Some(engine) => engine.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            // There is none, or nobody looks after it any more: the agent ends.
            std::future::pending::<()>().await;
        }
    }
}

/// What engines of this machine run without emulation, as far as that has a name.
fn own_platform() -> Option<Platform> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform::parse(&format!("linux/{architecture}")).ok()
}

/// What steps that need an operator's leave have here.
fn allowed(policy: &StepPolicy) -> impl Iterator<Item = String> {
    let networks = policy.networks.iter().map(|name| Leave::Network(name.clone()));
    policy.privileged.then_some(Leave::Privileged).into_iter().chain(networks).map(|leave| leave.capability())
}

#[cfg(test)]
mod tests {
    use cooper_api::agent::MAX_CAPABILITIES;
    use cooper_ports::engine::{EngineFeature, EngineOwner};
    use cooper_types::{AgentName, SecretString};

    use super::*;

    #[test]
    fn platforms_are_those_of_the_engine_that_are_wanted() {
        let platform = |text: &str| Platform::parse(text).expect(text);
        let engine = EngineDescription {
            name: "Engine".into(),
            version: "1".into(),
            api_version: "1.41".into(),
            native: platform("linux/amd64"),
            emulated: [platform("linux/arm64"), platform("linux/386")].into(),
            features: BTreeSet::default(),
        };
        let greeting = |wanted: &[&str]| {
            let mut settings = AgentSettings::new(
                AgentName::parse("a").expect("name"),
                1,
                "/nonexistent".into(),
                SecretString::new("t".into()),
                EngineOwner::new("test"),
            );
            settings.platforms = wanted.iter().map(|text| platform(text)).collect();
            settings.steps.privileged = true;
            settings.steps.networks = ["lan".to_owned()].into();
            let disk = watch::Sender::new(Some(DiskSpace { free: 5, total: 7 })).subscribe();
            Greeting::new(&settings, watch::Sender::new(Arc::new(engine.clone())).subscribe(), disk, "1")
        };
        let check = |wanted: &[&str], native: &[&str], emulated: &[&str]| {
            let hello = greeting(wanted).expect("a greeting").hello();
            assert_eq!(hello.native_platforms, native, "{wanted:?}");
            assert_eq!(hello.emulated_platforms, emulated, "{wanted:?}");
            assert_eq!(hello.capabilities, [TAKES_IMAGES, "allows:privileged", "allows:network=lan"]);
            assert_eq!((hello.disk_free_bytes, hello.disk_total_bytes), (Some(5), Some(7)));
        };
        check(&[], &["linux/amd64"], &["linux/386", "linux/arm64"]);
        check(&["linux/arm64"], &[], &["linux/arm64"]);
        check(&["linux/amd64"], &["linux/amd64"], &[]);
        let error = greeting(&["linux/amd64", "windows/amd64"]).err().expect("no Windows");
        assert!(error.to_string().contains("can't run windows/amd64, only linux/amd64, linux/386"), "{error}");
    }

    #[test]
    fn a_server_hears_of_all_that_an_operator_may_allow() {
        let name = AgentName::parse("a").expect("name");
        let (token, owner) = (SecretString::new("t".into()), EngineOwner::new("test"));
        let mut settings = AgentSettings::new(name, 1, "/nonexistent".into(), token, owner);
        settings.steps.privileged = true;
        settings.steps.networks = (0..Leave::MAX_NETWORKS).map(|number| format!("net{number}")).collect();
        let engine = EngineDescription {
            name: "Engine".into(),
            version: "1".into(),
            api_version: "1.41".into(),
            native: Platform::parse("linux/amd64").expect("valid"),
            emulated: BTreeSet::new(),
            features: EngineFeature::ALL.into(),
        };
        let (engine, disk) = (watch::Sender::new(Arc::new(engine)), watch::Sender::new(None));
        let greeting = Greeting::new(&settings, engine.subscribe(), disk.subscribe(), "1");
        let capabilities = greeting.expect("a greeting").hello().capabilities;
        assert!(capabilities.contains(&"allows:network=net0".to_owned()));
        assert_eq!(capabilities.len(), EngineFeature::ALL.len() + 2 + Leave::MAX_NETWORKS);
        assert!(capabilities.len() <= MAX_CAPABILITIES, "{}", capabilities.len());
    }
}
