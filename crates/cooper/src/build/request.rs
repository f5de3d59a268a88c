//! From the flags of `cooper build` to the request for a run. Everything that can be wrong on this side is found here,
//! before anything is packed.

use clap::Args;
use cooper_api::rest::{
    Argument, BuildSecret, DEFAULT_TIMEOUT_SECONDS, DockerBuildRequest, Label, MAX_TIMEOUT_SECONDS,
    MIN_TIMEOUT_SECONDS, PlatformView, RunRequest,
};
use cooper_spec::source::RemoteSource;
use cooper_types::{ContextId, Platform, PoolName};

use super::secret_flag::SecretFlag;
use crate::environment::Environment;
use crate::fault::Fault;

/// The flags that describe the build itself.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct BuildFlags {
    /// Name for the image, as repository or repository:tag, in the server's own registry unless it names another; {{.Run.ID}} and
    /// the other run variables work; may be repeated
    #[arg(long = "image", short = 't', visible_alias = "tag", value_name = "NAME")]
    pub(crate) images: Vec<String>,
    /// The Dockerfile, relative to the current folder, or to a repository's folder where SOURCE is one [default:
    /// SOURCE/Dockerfile]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<std::path::PathBuf>,
    /// A build argument; without a value, the environment's is taken; may be repeated
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// A build argument that is masked in logs. Docker still writes it into the image's history: see --secret
    #[arg(long = "secret-build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) secret_build_args: Vec<String>,
    /// A secret for RUN --mount=type=secret, which is in no layer, history or log
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|env=NAME]")]
    pub(crate) secrets: Vec<String>,
    /// A label of the image; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// The stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// What to build for, as os[/architecture[/variant]]; several, with commas between them, make one image for all
    /// [default: linux/amd64]
    #[arg(long, value_name = "PLATFORM[,PLATFORM]", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Build without pushing
    #[arg(long)]
    pub(crate) no_push: bool,
    /// The pool whose agents may build it [default: default]
    #[arg(long, value_name = "POOL")]
    pub(crate) agent_pool: Option<String>,
    /// Build without the cache of earlier builds
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Accepted for compatibility: bases are always resolved at their registry
    #[arg(long)]
    pub(crate) pull: bool,
    /// After how many seconds of work the run ends [default: 3600]
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(i64::from(MIN_TIMEOUT_SECONDS)..=i64::from(MAX_TIMEOUT_SECONDS)))]
    pub(crate) timeout: Option<u32>,
}

/// A checked request that lacks its context only.
#[derive(Debug)]
pub(crate) struct Request {
    pub(super) build: DockerBuildRequest,
    /// The pool that was named.
    pub(super) pool: Option<PoolName>,
    /// What the user should know, one line each.
    pub(crate) warnings: Vec<String>,
}

impl Request {
    /// Checks the flags and reads what they point at.
    pub(crate) fn from_flags(flags: &BuildFlags, environment: &Environment) -> Result<Self, Fault> {
        let mut warnings = Vec::new();
        if flags.images.iter().any(String::is_empty) {
            return Err(Fault::usage("--image is empty").with_hint("name the image as repository[:tag]"));
        }
        let is_push_enabled = !flags.no_push && !flags.images.is_empty();
        if flags.images.is_empty() && !flags.no_push {
            warnings.push("no --image is given, so the image is built and not pushed".to_owned());
        }
        let mut arguments = Vec::new();
        for text in &flags.build_args {
            arguments.push(argument("--build-arg", text, false, environment)?);
        }
        arguments.extend(read_secret_arguments(&flags.secret_build_args, environment)?);
        if !flags.secret_build_args.is_empty() {
            warnings.push(
                "--secret-build-arg is masked in logs, but Docker writes it into the image's history; --secret is in neither"
                    .to_owned(),
            );
        }
        let secrets = read_secrets(&flags.secrets, environment)?;
        let labels = flags.labels.iter().map(|text| label(text)).collect::<Result<Vec<_>, _>>()?;
        let (platform, platforms) = platforms(&flags.platform)?;
        let pool = flags.agent_pool.as_deref().map(PoolName::parse).transpose();
        let pool = pool.map_err(|error| Fault::usage(format!("--agent-pool: {error}")))?;
        let build = DockerBuildRequest {
            image_names: flags.images.clone(),
            is_push_enabled,
            no_cache: flags.no_cache,
            pull: flags.pull,
            docker_file_path: String::new(),
            target: flags.target.clone(),
            arguments,
            labels,
            secrets,
            timeout: flags.timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS),
            platform,
            platforms,
            source_location: String::new(),
            agent_pool_name: flags.agent_pool.clone(),
        };
        Ok(Self { build, pool, warnings })
    }

    /// The request for a build of this Dockerfile in this context.
    pub(crate) fn of_context(self, context: &ContextId, dockerfile: String) -> RunRequest {
        self.of_source(context.to_string(), dockerfile)
    }

    /// The request for a build of this Dockerfile in a source that an agent fetches.
    pub(crate) fn of_remote(self, source: &RemoteSource, dockerfile: String) -> RunRequest {
        self.of_source(source.to_string(), dockerfile)
    }

    fn of_source(self, source_location: String, docker_file_path: String) -> RunRequest {
        RunRequest::DockerBuildRequest(DockerBuildRequest { docker_file_path, source_location, ..self.build })
    }
}

/// One platform, or several, in the order in which they were named.
fn platforms(texts: &[String]) -> Result<(Option<PlatformView>, Vec<PlatformView>), Fault> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in texts {
        let platform = Platform::parse(text.trim()).map_err(|error| Fault::usage(error.to_string()))?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    let views = platforms.iter().map(PlatformView::from).collect::<Vec<_>>();
    Ok(match views.as_slice() {
        [] => (None, Vec::new()),
        [one] => (Some(one.clone()), Vec::new()),
        _ => (None, views),
    })
}

/// The values of `--secret`.
pub(crate) fn read_secrets(flags: &[String], environment: &Environment) -> Result<Vec<BuildSecret>, Fault> {
    let mut secrets: Vec<BuildSecret> = Vec::new();
    for text in flags {
        let secret = SecretFlag::parse(text)?.read(environment)?;
        if secrets.iter().any(|other| other.id == secret.id) {
            return Err(Fault::usage(format!("--secret id={} is given twice", secret.id)));
        }
        secrets.push(secret);
    }
    Ok(secrets)
}

/// The values of `--secret-build-arg`.
pub(crate) fn read_secret_arguments(flags: &[String], environment: &Environment) -> Result<Vec<Argument>, Fault> {
    flags.iter().map(|text| argument("--secret-build-arg", text, true, environment)).collect()
}

pub(crate) fn argument(flag: &str, text: &str, is_secret: bool, environment: &Environment) -> Result<Argument, Fault> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => {
            let value = environment.raw(text).map(|value| value.into_string());
            // As az: a name that the environment lacks gets the empty value.
            let value = value.unwrap_or_else(|| Ok(String::new()));
            let fault = |_| Fault::usage(format!("{flag} {text}: the environment variable is not UTF-8 text"));
            (text, value.map_err(fault)?)
        }
    };
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        // The name stands first, so a value may be in its place: it is not shown.
        return Err(
            Fault::usage(format!("{flag} does not begin with a name")).with_hint(format!("write {flag} NAME=VALUE"))
        );
    }
    Ok(Argument { name: name.to_owned(), value, is_secret })
}

fn label(text: &str) -> Result<Label, Fault> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(Fault::usage(format!("--label `{text}` has no name")).with_hint("write --label NAME=VALUE"));
    }
    Ok(Label { name: name.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(flags: BuildFlags, variables: &[(&str, &str)]) -> Result<(DockerBuildRequest, Vec<String>), Fault> {
        let request = Request::from_flags(&flags, &Environment::of(variables))?;
        let warnings = request.warnings.clone();
        let context = ContextId::parse("ctx-1").expect("id");
        let request = request.of_context(&context, "Dockerfile".to_owned());
        let RunRequest::DockerBuildRequest(build) = request else { panic!("{request:?}") };
        Ok((build, warnings))
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn without_a_name_nothing_is_pushed() {
        let (build, warnings) = request(BuildFlags::default(), &[]).expect("valid");
        assert!(!build.is_push_enabled);
        assert!(warnings[0].contains("not pushed"), "{warnings:?}");
        let named = BuildFlags { images: strings(&["app:{{.Run.ID}}"]), ..BuildFlags::default() };
        let (build, warnings) = request(named.clone(), &[]).expect("valid");
        assert!(build.is_push_enabled && warnings.is_empty());
        assert_eq!((build.timeout, build.source_location.as_str()), (3600, "ctx-1"));
        let (build, _) = request(BuildFlags { no_push: true, ..named }, &[]).expect("valid");
        assert!(!build.is_push_enabled);
    }

    #[test]
    fn arguments_take_the_environments_value() {
        let flags = BuildFlags {
            images: strings(&["app"]),
            build_args: strings(&["A=1=2", "B", "C", "D="]),
            secret_build_args: strings(&["S"]),
            ..BuildFlags::default()
        };
        let (build, warnings) = request(flags, &[("B", "from env"), ("S", "hunter2")]).expect("valid");
        let pairs: Vec<(&str, &str, bool)> =
            build.arguments.iter().map(|a| (a.name.as_str(), a.value.as_str(), a.is_secret)).collect();
        let expect =
            [("A", "1=2", false), ("B", "from env", false), ("C", "", false), ("D", "", false), ("S", "hunter2", true)];
        assert_eq!(pairs, expect);
        assert!(warnings[0].contains("history"), "{warnings:?}");
    }

    #[test]
    fn faults_name_the_flag() {
        let check = |flags: BuildFlags, expect: &str| {
            let fault = request(flags, &[]).expect_err(expect);
            assert!(fault.message.contains(expect), "{}", fault.message);
            assert_eq!(fault.exit, crate::exit::Exit::Usage);
        };
        check(BuildFlags { images: strings(&[""]), ..BuildFlags::default() }, "--image");
        check(BuildFlags { build_args: strings(&["=x"]), ..BuildFlags::default() }, "--build-arg");
        check(BuildFlags { labels: strings(&["=x"]), ..BuildFlags::default() }, "--label");
        check(BuildFlags { platform: strings(&["plan9"]), ..BuildFlags::default() }, "platform `plan9`");
        check(BuildFlags { platform: strings(&["linux/amd64", ""]), ..BuildFlags::default() }, "platform ``");
        check(BuildFlags { agent_pool: Some("a b".to_owned()), ..BuildFlags::default() }, "--agent-pool");
        check(BuildFlags { secrets: strings(&["id=a,src=/nonexistent"]), ..BuildFlags::default() }, "/nonexistent");
    }
}
