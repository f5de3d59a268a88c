//! `cooper build`: packs a folder and sends it, or names a place that an agent fetches; asks for a run, and follows it to its end.

use std::io::IsTerminal as _;

use clap::Args;
use cooper_api::rest::Run;
use cooper_client::Client;
use cooper_source::PackOptions;

use crate::azure::AzureFlags;
use crate::build::{BuildFlags, Request, Source, dockerfile_in_source, keep_stdin, pack_folder, upload_context};
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::local::{self, LocalArgs};
use crate::output;
use crate::started::{WaitFlags, Whose, new_key, see_through};

#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    /// The folder that holds the sources; `https://HOST/PATH.git#REFERENCE:FOLDER` in a Git repository; the URL of a tar
    /// archive; `oci://HOST/REPOSITORY:TAG`; or `-` for a tar archive on the standard input
    #[arg(value_name = "SOURCE")]
    source: String,
    #[command(flatten)]
    flags: BuildFlags,
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    local: LocalArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    azure: AzureFlags,
}

impl BuildArgs {
    /// Whether a server in this process is to do it.
    pub(crate) fn local(&self) -> bool {
        self.local.local
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
    let live = args.wait.is_live(environment);
    let is_own = !matches!(source, Source::Remote(_));
    let queue = async |client: &Client| queue(client, args, source, request, live).await;
    if args.local() {
        return local::run(&args.local, &args.wait, environment, is_own, queue).await;
    }
    let client = args.server.connect(environment)?;
    let run = queue(&client).await?;
    see_through(&client, run, &args.wait, environment, Whose::Theirs).await
}

/// Sends what the build needs from this machine, and asks for it.
async fn queue(client: &Client, args: &BuildArgs, source: Source, request: Request, live: bool) -> Result<Run, Stop> {
    for warning in args.azure.warnings().iter().chain(&request.warnings) {
        output::warning(warning);
    }
    if let Source::Remote(source) = &source
        && let Some(warning) = source.warning()
    {
        output::warning(&warning);
    }
    let request = match source {
        Source::Remote(source) => request.of_remote(&source, dockerfile_in_source(args.flags.file.as_deref())?),
        Source::Stdin => {
            request.check(client, args.local()).await?;
            let packed = keep_stdin(dockerfile_in_source(args.flags.file.as_deref())?, live).await?;
            let dockerfile = packed.dockerfile.clone();
            let context = upload_context(client, packed, live).await?;
            request.of_context(&context, dockerfile)
        }
        Source::Folder(folder) => {
            let options = PackOptions { folder, dockerfile: args.flags.file.clone(), whole: false };
            // Packing may take long; but what is wrong on this machine is told first.
            let early = has_dockerfile(&options);
            if early {
                request.check(client, args.local()).await?;
            }
            output::note("Packing source code into tar to upload...");
            let packed = pack_folder(options, live).await?;
            if !early {
                request.check(client, args.local()).await?;
            }
            let dockerfile = packed.dockerfile.clone();
            let context = upload_context(client, packed, live).await?;
            request.of_context(&context, dockerfile)
        }
    };
    let run = client.create_run(&request, &new_key()?).await?;
    output::note(&format!("Queued a build with ID: {}", run.run_id));
    Ok(run)
}

/// Whether a folder looks as if it could be packed.
fn has_dockerfile(options: &PackOptions) -> bool {
    let usual = || options.folder.join("Dockerfile");
    options.folder.is_dir() && options.dockerfile.clone().unwrap_or_else(usual).is_file()
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
        assert!(args.wait.no_wait && args.wait.no_logs && args.wait.no_format && args.flags.no_push);
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
