//! What of a request can be wrong, looked at before its context is packed and sent, which may take long.
//!
//! The server checks all of it again, and what only it can know.

use cooper_api::rest::DockerBuildRequest;
use cooper_client::Client;
use cooper_spec::plan::{ArgumentValue, BuildArgument};
use cooper_spec::quick_build::{PlanError, QuickBuild};
use cooper_spec::template::RunVariables;
use cooper_types::{ContextId, Platform, PoolName, RegistryName, RunId, Timestamp};

use super::Request;
use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};

impl Request {
    /// Finds what the server would refuse, with the same words.
    /// `elsewhere` says whether the server pushes quick builds to other registries as well.
    pub(crate) async fn check(&self, client: &Client, elsewhere: bool) -> Result<(), Stop> {
        let registry = client.info().await?.registry_name;
        planned(&self.build, registry, elsewhere).map_err(|error| Fault::usage(chain(&error)))?;
        if let Some(pool) = &self.pool
            && *pool != PoolName::default_pool()
            && client.list_pools().await?.value.iter().all(|known| known.name != *pool)
        {
            let message = format!("agent pool `{pool}` does not exist: `cooper pool list` shows the pools");
            return Err(Fault { exit: Exit::Server, message, hint: None }.into());
        }
        Ok(())
    }
}

/// Plans the build as the server will, with values for what is not known yet.
fn planned(build: &DockerBuildRequest, registry: RegistryName, elsewhere: bool) -> Result<(), PlanError> {
    let views = build.platform.iter().chain(&build.platforms);
    let platforms: Vec<Platform> = views.filter_map(|view| Platform::try_from(view).ok()).collect();
    let platform = platforms.first().cloned().unwrap_or(Platform::LINUX_AMD64);
    let arguments = build.arguments.iter().map(|argument| {
        let value = match argument.is_secret {
            true => ArgumentValue::Secret,
            false => ArgumentValue::Plain(argument.value.clone()),
        };
        BuildArgument { name: argument.name.clone(), value }
    });
    let quick = QuickBuild {
        image_names: build.image_names.clone(),
        push: build.is_push_enabled,
        no_cache: build.no_cache,
        // The packing finds the real one.
        dockerfile: "Dockerfile".to_owned(),
        target: build.target.clone(),
        arguments: arguments.collect(),
        labels: build.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect(),
        secrets: build.secrets.iter().map(|secret| secret.id.clone()).collect(),
        platform: platform.clone(),
        platforms,
        elsewhere,
    };
    let variables = RunVariables::quick_build(RunId::from_number(1), &registry, &platform, Timestamp::from_micros(0));
    let context = ContextId::parse("unknown").expect("a word is a context's id");
    quick.plan(&context, &variables, &registry).map(drop)
}
