//! `cooper build`: packs a folder and sends it, or names a place that an agent fetches; asks for a run, and follows it to its end.

use std::io::IsTerminal as _;

use clap::Args;
use cooper_api::rest::{Run, RunStatus};
use cooper_client::FollowOptions;
use cooper_source::PackOptions;
use cooper_types::{IdempotencyKey, RunId};

use crate::build::{BuildFlags, Request, Source, dockerfile_in_source, keep_stdin, pack_folder, upload_context};
use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::display::{Display, LogTarget};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::follow::{self, OnInterrupt, Outcome};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    /// The folder that holds the sources; `https://HOST/PATH.git#REFERENCE:FOLDER` in a Git repository; the URL of a tar
    /// archive; `oci://HOST/REPOSITORY:TAG`; or `-` for a tar archive on the standard input
    #[arg(value_name = "SOURCE")]
    source: String,
    #[command(flatten)]
    flags: BuildFlags,
    /// Queue the run and return
    #[arg(long)]
    no_wait: bool,
    /// Wait for the end without showing the log
    #[arg(long)]
    no_logs: bool,
    /// Plain lines even on a terminal
    #[arg(long)]
    no_format: bool,
    /// The form of the result; as json, standard output holds the run's record alone
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    azure: AzureFlags,
}

/// Flags that mean something to Azure only: accepted, so that scripts go on working.
#[derive(Args, Debug)]
#[command(next_help_heading = "Accepted for compatibility with az, without effect")]
struct AzureFlags {
    /// The server is the registry: see --server
    #[arg(long, short, value_name = "NAME")]
    registry: Option<String>,
    /// There are no resource groups
    #[arg(long, short = 'g', value_name = "NAME")]
    resource_group: Option<String>,
    /// The run always logs in to its own registry
    #[arg(long, value_name = "MODE")]
    auth_mode: Option<String>,
    /// The run always acts for its principal
    #[arg(long, value_name = "ID")]
    source_acr_auth_id: Option<String>,
    /// Logs are kept by the server
    #[arg(long, value_name = "TEMPLATE")]
    log_template: Option<String>,
    /// There are no subscriptions
    #[arg(long, value_name = "NAME", hide = true)]
    subscription: Option<String>,
}

impl AzureFlags {
    fn warnings(&self) -> Vec<String> {
        let flags = [
            (self.registry.is_some(), "--registry", "the server is named by --server, COOPER_SERVER or `cooper login`"),
            (self.resource_group.is_some(), "--resource-group", "there are no resource groups here"),
            (self.auth_mode.is_some(), "--auth-mode", "a run always logs in to its own registry"),
            (self.source_acr_auth_id.is_some(), "--source-acr-auth-id", "a run always acts for who started it"),
            (self.log_template.is_some(), "--log-template", "logs are kept by the server"),
            (self.subscription.is_some(), "--subscription", "there are no subscriptions here"),
        ];
        let given = flags.into_iter().filter(|(given, _, _)| *given);
        given.map(|(_, flag, reason)| format!("{flag} has no effect: {reason}")).collect()
    }
}

pub(crate) async fn run(args: &BuildArgs, environment: &Environment) -> Result<Exit, Stop> {
    let source = Source::parse(&args.source)?;
    if let Source::Remote(_) | Source::Stdin = &source {
        // Before anything is asked of the server.
        dockerfile_in_source(args.flags.file.as_deref())?;
    }
    if source == Source::Stdin && std::io::stdin().is_terminal() {
        return Err(Fault::usage("the standard input is a terminal")
            .with_hint("pipe a tar archive into it: `tar -c . | cooper build -`")
            .into());
    }
    let request = Request::from_flags(&args.flags, environment)?;
    let client = args.server.connect(environment)?;
    for warning in args.azure.warnings().iter().chain(&request.warnings) {
        output::warning(warning);
    }
    if let Source::Remote(source) = &source
        && let Some(warning) = source.warning()
    {
        output::warning(&warning);
    }
    let live = is_live(args, environment);
    let request = match source {
        Source::Remote(source) => request.of_remote(&source, dockerfile_in_source(args.flags.file.as_deref())?),
        Source::Stdin => {
            request.check(&client).await?;
            let packed = keep_stdin(dockerfile_in_source(args.flags.file.as_deref())?, live).await?;
            let dockerfile = packed.dockerfile.clone();
            let context = upload_context(&client, packed, live).await?;
            request.of_context(&context, dockerfile)
        }
        Source::Folder(folder) => {
            let options = PackOptions { folder, dockerfile: args.flags.file.clone() };
            // Packing may take long; but what is wrong on this machine is told first.
            let early = has_dockerfile(&options);
            if early {
                request.check(&client).await?;
            }
            output::note("Packing source code into tar to upload...");
            let packed = pack_folder(options, live).await?;
            if !early {
                request.check(&client).await?;
            }
            let dockerfile = packed.dockerfile.clone();
            let context = upload_context(&client, packed, live).await?;
            request.of_context(&context, dockerfile)
        }
    };
    let run = client.create_run(&request, &new_key()?).await?;
    output::note(&format!("Queued a build with ID: {}", run.run_id));
    if args.no_wait {
        match args.output {
            OutputForm::Json => output::json(&run)?,
            OutputForm::Text => output::line(&run.run_id.to_string())?,
        }
        return Ok(Exit::Success);
    }
    let target = match (args.no_logs, args.output) {
        (true, _) => LogTarget::Nowhere,
        (false, OutputForm::Text) => LogTarget::Stdout,
        (false, OutputForm::Json) => LogTarget::Stderr,
    };
    let mut display = if live && !args.no_logs { Display::live() } else { Display::plain(target) };
    match follow::follow(&client, run.run_id, &mut display, FollowOptions::default(), on_interrupt()).await? {
        Outcome::Left => {
            output::note(&left(run.run_id));
            Ok(Exit::Canceled)
        }
        Outcome::Ended(run) => ended(&run, args.output),
    }
}

/// Whether a folder looks as if it could be packed.
fn has_dockerfile(options: &PackOptions) -> bool {
    let usual = || options.folder.join("Dockerfile");
    options.folder.is_dir() && options.dockerfile.clone().unwrap_or_else(usual).is_file()
}

/// A live display needs a terminal that we may paint on, and data on standard output must not get mixed into it.
fn is_live(args: &BuildArgs, environment: &Environment) -> bool {
    let painted = std::io::stderr().is_terminal()
        && !environment.is_set("NO_COLOR")
        && environment.raw("TERM").is_none_or(|term| term != "dumb");
    painted && !args.no_format && (args.output == OutputForm::Json || std::io::stdout().is_terminal())
}

fn on_interrupt() -> OnInterrupt {
    match std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        true => OnInterrupt::Ask,
        false => OnInterrupt::Leave,
    }
}

fn left(run: RunId) -> String {
    format!("Run {run} goes on. Follow it with `cooper logs {run} --follow`; end it with `cooper runs cancel {run}`.")
}

/// A key that no other request has. A fresh name is what counts, not its form.
fn new_key() -> Result<IdempotencyKey, Stop> {
    let key = uuid::Uuid::new_v4().to_string();
    Ok(IdempotencyKey::parse(&key).map_err(|error| Fault::machinery(error.to_string()))?)
}

fn ended(run: &Run, form: OutputForm) -> Result<Exit, Stop> {
    if form == OutputForm::Json {
        output::json(run)?;
    }
    let took = run.finish_time.zip(run.start_time).map(|(finish, start)| output::duration(finish.since(start)));
    let took = took.map(|took| format!(" after {took}")).unwrap_or_default();
    let exit = Exit::of_run(run.status);
    let what = match run.status {
        RunStatus::Succeeded => {
            output::note(&format!("Run {} succeeded{took}.", run.run_id));
            for image in &run.output_images {
                let tag = image.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
                let digest = image.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
                output::note(&format!("Pushed {}/{}{tag}{digest}", image.registry, image.repository));
            }
            return Ok(exit);
        }
        RunStatus::Failed => "failed",
        RunStatus::Canceled => "was cancelled",
        RunStatus::Timeout => "timed out",
        RunStatus::Error => "was ended by a failure of the machinery",
        RunStatus::Queued | RunStatus::Started | RunStatus::Running => "goes on",
    };
    let reason = run.run_error_message.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let fault = Fault { exit, message: format!("run {} {what}{took}{reason}", run.run_id), hint: None };
    Err(match run.status {
        RunStatus::Canceled => fault,
        RunStatus::Timeout => fault.with_hint("give it more time with --timeout SECONDS"),
        _ => fault.with_hint(format!("read its log again with `cooper logs {}`", run.run_id)),
    }
    .into())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(flags: &[&str]) -> Result<BuildArgs, clap::Error> {
        let line = ["cooper", "build"].into_iter().chain(flags.iter().copied());
        match Cli::try_parse_from(line)?.command {
            Command::Build(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_for_az_works() {
        let args = parse(&[
            "-t",
            "app:v1",
            "--image",
            "app:{{.Run.ID}}",
            "-r",
            "myregistry",
            "-g",
            "group",
            "-f",
            "docker/Dockerfile",
            "--build-arg",
            "A=1",
            "--build-arg",
            "B",
            "--secret-build-arg",
            "S=x",
            "--target",
            "final",
            "--platform",
            "linux/arm64/v8",
            "--no-push",
            "--timeout",
            "600",
            "--no-wait",
            "--no-logs",
            "--no-format",
            "--auth-mode",
            "Default",
            "--source-acr-auth-id",
            "none",
            "--log-template",
            "x:y",
            "--agent-pool",
            "p",
            ".",
        ])
        .expect("parsed");
        assert_eq!(args.flags.images, ["app:v1", "app:{{.Run.ID}}"]);
        assert_eq!(args.flags.timeout, Some(600));
        assert_eq!((args.source.as_str(), args.azure.warnings().len()), (".", 5));
        assert_eq!(args.flags.agent_pool.as_deref(), Some("p"));
        assert!(args.no_wait && args.no_logs && args.no_format && args.flags.no_push);
    }

    #[test]
    fn wrong_lines_are_refused() {
        for flags in
            [&[][..], &["--timeout", "0", "."], &["--timeout", "28801", "."], &["--nonsense", "."], &[".", "x"]]
        {
            assert!(parse(flags).is_err(), "{flags:?}");
        }
    }
}
