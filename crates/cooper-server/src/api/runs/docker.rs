//! A quick build as it is asked for on the wire.

use cooper_api::problem::ProblemCode;
use cooper_api::rest::DockerBuildRequest;
use cooper_engine::run::Asked;
use cooper_ports::runs::{RunType, SecretKind};
use cooper_spec::plan::{ArgumentValue, BuildArgument};
use cooper_spec::quick_build::{BuildSource, QuickBuild};
use cooper_spec::source::SourceLocation;
use cooper_types::{ContextId, Platform, SecretBytes};

use super::{AskedRun, invalid, platform_of, seal};
use crate::core::Core;
use crate::problem::{ApiError, ApiResult, chain};

/// More platforms than there are.
const MAX_PLATFORMS: usize = 16;

/// From the wire to a build.
pub(super) fn asked(core: &Core, request: DockerBuildRequest) -> ApiResult<AskedRun> {
    let (platform, platforms) = platforms(&request)?;
    let source = build_source(&request.source_location)?;
    let mut secrets = Vec::new();
    for secret in &request.secrets {
        secrets.push(seal(core, SecretKind::Build, &secret.id, &secret.value.0)?);
    }
    let mut arguments = Vec::with_capacity(request.arguments.len());
    for argument in request.arguments {
        let value = if argument.is_secret {
            let value = SecretBytes::new(argument.value.into_bytes());
            secrets.push(seal(core, SecretKind::Argument, &argument.name, &value)?);
            ArgumentValue::Secret
        } else {
            ArgumentValue::Plain(argument.value)
        };
        arguments.push(BuildArgument { name: argument.name, value });
    }
    let build = QuickBuild {
        image_names: request.image_names,
        push: request.is_push_enabled,
        no_cache: request.no_cache,
        dockerfile: request.docker_file_path,
        target: request.target,
        arguments,
        labels: request.labels.into_iter().map(|label| (label.name, label.value)).collect(),
        secrets: request.secrets.into_iter().map(|secret| secret.id).collect(),
        platform,
        platforms,
        elsewhere: core.docker_logins.is_some(),
    };
    Ok(AskedRun {
        asked: Asked::Build { build, source },
        run_type: RunType::QuickBuild,
        secrets,
        timeout: request.timeout,
        pool: request.agent_pool_name,
        replay: None,
    })
}

/// What is built for: the first, and all where that is more than one.
fn platforms(request: &DockerBuildRequest) -> ApiResult<(Platform, Vec<Platform>)> {
    if request.platform.is_some() && !request.platforms.is_empty() {
        return Err(invalid("platform and platforms are given; name all under platforms".to_owned()));
    }
    if request.platforms.len() > MAX_PLATFORMS {
        let count = request.platforms.len();
        return Err(invalid(format!("platforms: {count} are given, at most {MAX_PLATFORMS} are allowed")));
    }
    let platforms = request.platforms.iter().map(|view| platform_of(Some(view))).collect::<ApiResult<Vec<_>>>()?;
    let first = match platforms.first() {
        Some(first) => first.clone(),
        None => platform_of(request.platform.as_ref())?,
    };
    Ok((first, platforms))
}

/// What `sourceLocation` names: a place that an agent fetches, or an uploaded context by its id.
fn build_source(text: &str) -> ApiResult<BuildSource> {
    match SourceLocation::parse(text) {
        Ok(SourceLocation::Remote(source)) => Ok(BuildSource::Remote(source)),
        Ok(SourceLocation::Nothing | SourceLocation::Stdin) => {
            let detail =
                format!("sourceLocation `{text}` holds no Dockerfile; upload a context, or name a remote source");
            Err(ApiError::new(ProblemCode::InvalidRequest, detail))
        }
        Ok(SourceLocation::Local(id)) => ContextId::parse(&id).map(BuildSource::Context).map_err(|error| {
            ApiError::new(ProblemCode::ContextNotFound, format!("sourceLocation is not valid: {error}"))
        }),
        Err(error) => {
            Err(ApiError::new(ProblemCode::InvalidRequest, format!("sourceLocation is not valid: {}", chain(&error))))
        }
    }
}
