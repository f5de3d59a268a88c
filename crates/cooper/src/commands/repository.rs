//! `cooper repository`: what the registry holds, as `az acr repository` shows and deletes it.

use clap::{Args, Subcommand};
use cooper_client::{ListedManifest, ListedTag};
use cooper_types::Digest;
use serde_json::json;

use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

/// How many repositories are asked for at once.
const PAGE: u32 = 1000;

#[derive(Args, Debug)]
pub(crate) struct RepositoryArgs {
    #[command(subcommand)]
    command: RepositoryCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum RepositoryCommand {
    /// List the repositories
    List {
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// List a repository's tags
    ShowTags {
        /// The repository
        #[arg(value_name = "REPOSITORY")]
        repository: String,
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// List a repository's manifests, with their tags
    ShowManifests {
        /// The repository
        #[arg(value_name = "REPOSITORY")]
        repository: String,
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Delete a manifest with all its tags, or a repository with all that it holds
    Delete {
        /// REPOSITORY, REPOSITORY:TAG or REPOSITORY@DIGEST
        #[arg(value_name = "NAME")]
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Delete a tag, and leave its manifest
    Untag {
        /// REPOSITORY:TAG
        #[arg(value_name = "IMAGE")]
        image: String,
    },
}

pub(crate) async fn run(args: &RepositoryArgs, environment: &Environment) -> Result<Exit, Stop> {
    let client = args.server.connect_registry(environment)?;
    match &args.command {
        RepositoryCommand::List { output: form } => {
            let (names, _) = client.repositories(PAGE).await?;
            match form {
                OutputForm::Json => output::json(&names)?,
                OutputForm::Text => names.iter().try_for_each(|name| output::line(name))?,
            }
        }
        RepositoryCommand::ShowTags { repository, output: form } => {
            let tags = client.tags(repository).await?;
            match form {
                OutputForm::Json => output::json(&tags.iter().map(tag_json).collect::<Vec<_>>())?,
                OutputForm::Text => {
                    let row = |tag: &ListedTag| [tag.name.clone(), tag.updated.to_string(), tag.digest.to_string()];
                    let rows: Vec<[String; 3]> = tags.iter().map(row).collect();
                    output::line(&table::table(["TAG", "UPDATED", "DIGEST"], &rows))?;
                }
            }
        }
        RepositoryCommand::ShowManifests { repository, output: form } => {
            let manifests = client.manifests(repository).await?;
            match form {
                OutputForm::Json => output::json(&manifests.iter().map(manifest_json).collect::<Vec<_>>())?,
                OutputForm::Text => {
                    let row = |it: &ListedManifest| {
                        [it.digest.to_string(), it.updated.to_string(), it.size.to_string(), it.tags.join(" ")]
                    };
                    let rows: Vec<[String; 4]> = manifests.iter().map(row).collect();
                    output::line(&table::table(["DIGEST", "UPDATED", "BYTES", "TAGS"], &rows))?;
                }
            }
        }
        RepositoryCommand::Delete { name, yes } => match (name.split_once('@'), name.rsplit_once(':')) {
            (Some((repository, digest)), _) => {
                let digest = Digest::parse(digest).map_err(|error| Fault::usage(error.to_string()))?;
                if !yes && !agreed(&format!("manifest {name} with all its tags"))? {
                    return Ok(Exit::Success);
                }
                client.delete_manifest(repository, &digest).await?;
                output::note(&format!("Deleted {name} and its tags."));
            }
            (None, Some((repository, tag))) => {
                let tags = client.tags(repository).await?;
                let found = tags.into_iter().find(|found| found.name == tag);
                let found =
                    found.ok_or_else(|| Fault::usage(format!("repository `{repository}` has no tag `{tag}`")))?;
                if !yes && !agreed(&format!("manifest {repository}@{} with all its tags", found.digest))? {
                    return Ok(Exit::Success);
                }
                client.delete_manifest(repository, &found.digest).await?;
                output::note(&format!("Deleted {repository}@{} and its tags.", found.digest));
            }
            (None, None) => {
                if !yes && !agreed(&format!("repository {name} with all that it holds"))? {
                    return Ok(Exit::Success);
                }
                client.delete_repository(name).await?;
                output::note(&format!("Deleted repository {name}."));
            }
        },
        RepositoryCommand::Untag { image } => {
            let (repository, tag) =
                image.rsplit_once(':').ok_or_else(|| Fault::usage(format!("`{image}` is not REPOSITORY:TAG")))?;
            client.delete_tag(repository, tag, None, None).await?;
            output::note(&format!("Deleted tag {image}; its manifest stays."));
        }
    }
    Ok(Exit::Success)
}

/// Asks whether something is to be deleted, and says so if not.
fn agreed(what: &str) -> Result<bool, Fault> {
    let agreed = output::agreed(&format!("Delete {what}?"))?;
    if !agreed {
        output::note("Nothing is deleted.");
    }
    Ok(agreed)
}

fn tag_json(tag: &ListedTag) -> serde_json::Value {
    json!({ "name": tag.name, "digest": tag.digest, "lastUpdateTime": tag.updated.to_string() })
}

fn manifest_json(it: &ListedManifest) -> serde_json::Value {
    json!({
        "digest": it.digest, "mediaType": it.media_type, "imageSize": it.size, "tags": it.tags,
        "lastUpdateTime": it.updated.to_string(), "subject": it.subject,
    })
}
