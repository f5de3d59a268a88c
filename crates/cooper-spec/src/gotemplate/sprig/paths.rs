//! Paths with slashes.

use crate::gotemplate::function::{Function, exact};
use crate::gotemplate::value::Val;
use crate::slash_path::clean;

pub(super) const FUNCTIONS: &[Function] = &[
    exact("base", 1, |_, args| Ok(Val::text(base(args.text(0)?)))),
    exact("dir", 1, |_, args| {
        let path = args.text(0)?;
        Ok(Val::text(&clean(path.rfind('/').map_or("", |slash| &path[..=slash]))))
    }),
    exact("clean", 1, |_, args| Ok(Val::text(&clean(args.text(0)?)))),
    exact("ext", 1, |_, args| {
        let name = args.text(0)?.rsplit('/').next().unwrap_or_default();
        Ok(Val::text(name.rfind('.').map_or("", |dot| &name[dot..])))
    }),
    exact("isAbs", 1, |_, args| Ok(Val::Bool(args.text(0)?.starts_with('/')))),
];

fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => "/",
        Some(name) => name,
    }
}
