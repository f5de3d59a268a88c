//! What `cooper build` does before there is a run: flags to a request, a folder to an uploaded context.

mod request;
mod secret_flag;
mod source;
mod upload;

pub(crate) use request::{BuildFlags, Request};
pub(crate) use source::local_folder;
pub(crate) use upload::{pack_folder, upload_context};
