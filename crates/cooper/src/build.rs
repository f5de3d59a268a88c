//! What `cooper build` does before there is a run: flags to a request, SOURCE to what the server builds from.

mod check;
mod request;
mod secret_flag;
mod source;
mod upload;

pub(crate) use request::{BuildFlags, Request, argument, read_secret_arguments, read_secrets};
pub(crate) use source::{Source, dockerfile_in_source};
pub(crate) use upload::{keep_stdin, pack_folder, upload_context};
