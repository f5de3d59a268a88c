//! The generic delivery, our own: `docs/webhooks.md` is its contract.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_engine::trigger::event::{ChangedFiles, FileChange, Push, RefChange, SourceChange, SourceEvent, TagPush};
use cooper_engine::trigger::repository::{EventRepository, RepositoryUrl};
use serde_json::Value;

use super::error::ParseError;
use super::node::{Node, cut_message, cut_text};
use super::{Delivery, DeliveryId, Named, Request};

pub(super) fn delivery(request: &Request<'_>, value: &Value) -> Result<Delivery, ParseError> {
    let event = request.node("delivery", value).text("event")?.unwrap_or("push");
    let root = request.node(event, value);
    // In the body, because the signature covers that.
    let id = root.needed_text("delivery")?;
    let id = DeliveryId::parse(id).ok_or_else(|| root.invalid("delivery", "it is not 1 to 200 visible characters"))?;
    let change = match event {
        "push" => push(&root)?,
        "ping" => SourceChange::Ping,
        name => SourceChange::Other { name: cut_text(name) },
    };
    let repository = match root.text("repository")? {
        Some(url) => {
            let url = RepositoryUrl::parse(url).map_err(|error| root.invalid("repository", error))?;
            Some(EventRepository { name: cut_text(&url.to_string()), urls: vec![url], any_case: false })
        }
        None if matches!(change, SourceChange::Push(_) | SourceChange::Tag(_)) => {
            return Err(root.missing("repository"));
        }
        None => None,
    };
    Ok(Delivery { id, events: vec![SourceEvent { repository, change }] })
}

fn push(root: &Node<'_>) -> Result<SourceChange, ParseError> {
    let reference = root.needed_text("ref")?;
    let change = RefChange::between(root.object("before")?, root.object("after")?, root.flag("forced"))
        .ok_or_else(|| root.missing("after"))?;
    let message = match encoded(root, "message_base64")? {
        Some(bytes) => Some(cut_message(&String::from_utf8_lossy(&bytes))),
        None => root.message("message"),
    };
    let pusher = root.label("pusher");
    Ok(match Named::of(reference) {
        Named::Branch(branch) => {
            SourceChange::Push(Push { branch: root.name("ref", branch)?, files: files(root)?, change, message, pusher })
        }
        Named::Tag(tag) => {
            let commit = root.object("commit")?;
            SourceChange::Tag(TagPush { tag: root.name("ref", tag)?, change, commit, message, pusher })
        }
        Named::Else => SourceChange::Other { name: "push".to_owned() },
    })
}

/// The list of changed files, which its sender vouches for to be whole; without one, nothing is known.
fn files(root: &Node<'_>) -> Result<ChangedFiles, ParseError> {
    let mut files = ChangedFiles::whole();
    // As `git diff --name-only -z` writes it: any name goes through, and a shell needs no escapes.
    if let Some(list) = encoded(root, "files_base64")? {
        for path in list.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            match str::from_utf8(path) {
                Ok(path) => files.note(path, FileChange::Modified),
                Err(_) => files.is_missing_some(),
            }
        }
        return Ok(files);
    }
    let Some(list) = root.list("files")? else { return Ok(ChangedFiles::unknown()) };
    for path in list {
        match path.as_str() {
            Some(path) => files.note(path, FileChange::Modified),
            None => return Err(root.invalid("files", "it is no list of paths")),
        }
    }
    Ok(files)
}

fn encoded(root: &Node<'_>, path: &str) -> Result<Option<Vec<u8>>, ParseError> {
    let Some(text) = root.text(path)? else { return Ok(None) };
    STANDARD.decode(text.trim()).map(Some).map_err(|_| root.invalid(path, "it is no base64"))
}
