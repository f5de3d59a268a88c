//! Where a step mounts the task's volumes.

use cooper_types::Platform;

use crate::task::fields::{Fields, Report, clip};
use crate::task::model::VolumeMount;
use crate::task::nearest::nearest;
use crate::task::paths;
use crate::task::read::Shared;
use crate::task::yaml::{Kind, Node};

/// What every container of a step has mounted there already.
const TAKEN: &[(&str, &str)] = &[(paths::WORKSPACE, "the workspace"), (paths::HOME, "the steps' home")];

/// Reads `volumeMounts`; `windows` is the platform of Windows that the step is for, if it is for one.
pub(super) fn read(
    fields: &Fields<'_>,
    kind: &str,
    windows: Option<&Platform>,
    shared: &Shared<'_>,
    report: &mut Report<'_>,
) -> Vec<VolumeMount> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    let is_empty = |node: &Node| matches!(&node.kind, Kind::List(items) if items.is_empty());
    if kind == "push" && fields.node("volumeMounts").is_some_and(|node| !is_empty(node)) {
        report.fault(
            fields.at("volumeMounts"),
            "a push step has `volumeMounts`",
            "a push runs nothing that could read them",
        );
        return mounts;
    }
    let wanted = fields.maps("volumeMounts", report);
    if let Some(platform) = windows.filter(|_| !wanted.is_empty()) {
        let message = format!("a step on {platform} has `volumeMounts`");
        report.fault(
            fields.at("volumeMounts"),
            message,
            "engines on Windows have no volumes in memory: hand secrets over by `env`",
        );
        return mounts;
    }
    for fields in wanted {
        let (Some(name), Some(path)) = (fields.text("name", report), fields.text("mountPath", report)) else {
            report.fault(fields.at, "a mount needs `name` and `mountPath`", "name a volume and a directory");
            continue;
        };
        let Some(volume) = shared.volumes.iter().position(|volume| *volume == name.value) else {
            let message = format!("volume `{}` is not declared", clip(&name.value));
            let help = match nearest(&name.value, shared.volumes.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "declare it under `volumes`".to_owned(),
            };
            report.fault(name.at, message, help);
            continue;
        };
        let Some(mount_path) = paths::mount_path(&path.value) else {
            let message = format!("mountPath `{}` is not one", clip(&path.value));
            report.fault(path.at, message, "write the absolute path of a directory, such as /run/keys");
            continue;
        };
        if let Some((_, what)) = TAKEN.iter().find(|(taken, _)| *taken == mount_path) {
            let message = format!("mountPath `{}` is where {what} is mounted", clip(&path.value));
            report.fault(path.at, message, "write another directory, such as /run/keys");
            continue;
        }
        if mounts.iter().any(|before| before.mount_path == mount_path) {
            let message = format!("mountPath `{}` is there twice", clip(&path.value));
            report.fault(path.at, message, "give each mount a directory of its own");
            continue;
        }
        mounts.push(VolumeMount { volume, mount_path });
    }
    mounts
}
