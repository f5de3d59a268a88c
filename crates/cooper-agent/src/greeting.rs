//! What an agent says of itself on each new stream. It is said once a stream: when the engine turns out to be another
//! one, or emulates more or less than before, the stream is opened anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use cooper_api::agent::{SpokenByAgent, wire};
use cooper_ports::engine::EngineDescription;
use cooper_types::Platform;
use tokio::sync::watch;

use crate::error::AgentError;
use crate::settings::AgentSettings;

/// Makes greetings of what is known now.
pub(crate) struct Greeting {
    /// All but what is said of the engine.
    hello: wire::Hello,
    /// The platforms that work is taken for; all if empty.
    wanted: BTreeSet<Platform>,
    engine: watch::Receiver<Arc<EngineDescription>>,
}

impl Greeting {
    /// The greetings of one life of an agent. The settings may leave out some of what the engine can do, and name nothing
    /// that it cannot; what it can no longer do later is left out.
    pub(crate) fn new(
        settings: &AgentSettings,
        engine: watch::Receiver<Arc<EngineDescription>>,
    ) -> Result<Self, AgentError> {
        let known = Arc::clone(&engine.borrow());
        let can = || std::iter::once(&known.native).chain(&known.emulated);
        if let Some(platform) = settings.platforms.iter().find(|platform| can().all(|has| has != *platform)) {
            return Err(AgentError::Platform { platform: platform.clone(), has: can().cloned().collect() });
        }
        let hello = wire::Hello {
            protocol: SpokenByAgent::THIS.newest,
            oldest_protocol: SpokenByAgent::THIS.oldest,
            pool: settings.pool.to_string(),
            name: settings.name.to_string(),
            incarnation: uuid::Uuid::new_v4().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: settings.slots,
            ..wire::Hello::default()
        };
        Ok(Self { hello, wanted: settings.platforms.clone(), engine })
    }

    /// The greeting for a stream that opens now; [`Greeting::outdated`] is about it from then on.
    pub(crate) fn hello(&mut self) -> wire::Hello {
        let engine = self.engine.borrow_and_update();
        let wanted = |platform: &&Platform| self.wanted.is_empty() || self.wanted.contains(*platform);
        wire::Hello {
            engine: format!("{} {}", engine.name, engine.version),
            native_platforms: Some(&engine.native).filter(wanted).map(Platform::to_string).into_iter().collect(),
            capabilities: engine.features.iter().map(|feature| feature.as_str().to_owned()).collect(),
            emulated_platforms: engine.emulated.iter().filter(wanted).map(Platform::to_string).collect(),
            ..self.hello.clone()
        }
    }

    /// Returns when the last greeting is no longer true. Cancel-safe.
    pub(crate) async fn outdated(&mut self) {
        if self.engine.changed().await.is_err() {
            // Nobody looks after the engine any more: the agent ends.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use cooper_ports::engine::EngineOwner;
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
            Greeting::new(&settings, watch::Sender::new(Arc::new(engine.clone())).subscribe())
        };
        let check = |wanted: &[&str], native: &[&str], emulated: &[&str]| {
            let hello = greeting(wanted).expect("a greeting").hello();
            assert_eq!(hello.native_platforms, native, "{wanted:?}");
            assert_eq!(hello.emulated_platforms, emulated, "{wanted:?}");
        };
        check(&[], &["linux/amd64"], &["linux/386", "linux/arm64"]);
        check(&["linux/arm64"], &[], &["linux/arm64"]);
        check(&["linux/amd64"], &["linux/amd64"], &[]);
        let error = greeting(&["linux/amd64", "windows/amd64"]).err().expect("no Windows");
        assert!(error.to_string().contains("can't run windows/amd64, only linux/amd64, linux/386"), "{error}");
    }
}
